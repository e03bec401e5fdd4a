"""Where things lie in a preprocessed data set: RVT's folder layout, which people have terabytes of, on one page.

{train,val,test}/<sequence>/
    labels_v2/labels.npz                       boxes of all labelled frames, and where each frame's begin
    labels_v2/timestamps_us.npy                times of the labelled frames
    event_representations_v2/<ev_repr_name>/   for example stacked_histogram_dt=50_nbins=10
        event_representations[_ds2_nearest].h5     one frame of each window; the data set is called `data`
        event_representations[_ds2_nearest]_compact.h5     the same, smaller and faster: data/frame_store.py
        timestamps_us.npy                          end of each window
        objframe_idx_2_repr_idx.npy                frame index of each labelled frame
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from config.schema import DatasetConfig

SPLITS = ("train", "val", "test")
FRAMES_KEY = "data"  # of the frames file
BOXES_KEY, FIRST_BOX_KEY = "labels", "objframe_idx_2_label_idx"  # of labels.npz
REPRESENTATIONS = "event_representations_v2"
PREPROCESS_AGAIN = "Run scripts/preprocess.py for this recording again"
CHECK_LABELS = "Check its labels_v2 folders"


@dataclass(frozen=True)
class SequenceLayout:
    """Paths of one sequence's files, whether they exist or not."""

    folder: Path
    ev_repr_name: str
    half_resolution: bool

    @classmethod
    def of(cls, folder: Path, dataset: DatasetConfig) -> SequenceLayout:
        return cls(folder, dataset.ev_repr_name, dataset.downsample_by_factor_2)

    @property
    def boxes(self) -> Path:
        return self.folder / "labels_v2" / "labels.npz"

    @property
    def label_times(self) -> Path:
        return self.folder / "labels_v2" / "timestamps_us.npy"

    @property
    def representation(self) -> Path:
        return self.folder / REPRESENTATIONS / self.ev_repr_name

    @property
    def frames(self) -> Path:
        return self.representation / frames_file_name(self.half_resolution)

    @property
    def compact_frames(self) -> Path:
        return compact_path(self.frames)

    @property
    def frame_times(self) -> Path:
        return self.representation / "timestamps_us.npy"

    @property
    def label_frames(self) -> Path:
        return self.representation / "objframe_idx_2_repr_idx.npy"


def frames_file_name(half_resolution: bool) -> str:
    return f"event_representations{'_ds2_nearest' if half_resolution else ''}.h5"


def compact_path(frames_path: Path) -> Path:
    """Where the compact store of a frames file lies."""
    return frames_path.with_name(f"{frames_path.stem}_compact.h5")


def is_sequence_folder(path: Path) -> bool:
    """Whether a folder is one sequence, preprocessed in whatever representation."""
    return (path / REPRESENTATIONS).is_dir()


def may_be_sequence(entry: Path) -> bool:
    """Whether an entry of a split's folder counts as a sequence, sound or not."""
    return entry.is_dir() and not entry.name.startswith(".")
