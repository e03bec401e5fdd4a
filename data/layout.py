"""Where things lie in a preprocessed data set: RVT's folder layout, which people have terabytes of, on one page.

{train,val,test}/<sequence>/
    labels_v2/labels.npz                       boxes of all labelled frames, and where each frame's begin
    labels_v2/timestamps_us.npy                times of the labelled frames
    event_representations_v2/<ev_repr_name>/   for example stacked_histogram_dt=50_nbins=10
        event_representations[_ds2_nearest].h5     one frame of each window; the data set is called `data`. Frames of
                                                   another size than the sensor's and half of it: _540x960
        event_representations[_ds2_nearest]_compact.h5     the same, smaller and faster: data/frame_store.py
            one of the two is enough (`FrameFiles`); where both are, the compact one is read
        timestamps_us.npy                          end of each window
        objframe_idx_2_repr_idx.npy                frame index of each labelled frame
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from config.errors import UserError
from config.schema import DatasetConfig

SPLITS = ("train", "val", "test")
FRAMES_KEY = "data"  # of the frames file
# Attributes of a file of frames that RVT's own script did not make
SETTINGS_KEY, RULE_KEY, REPORT_KEY = "settings", "label_rule", "report"
ATTRIBUTES = (SETTINGS_KEY, RULE_KEY, REPORT_KEY)
BOXES_KEY, FIRST_BOX_KEY = "labels", "objframe_idx_2_label_idx"  # of labels.npz
LABELS = "labels_v2"
REPRESENTATIONS = "event_representations_v2"
PREPROCESS_AGAIN = "Delete the sequence's folder and run scripts/preprocess.py again"
DELETE_AND_PREPROCESS = "Delete {} and run scripts/preprocess.py again"
MAKE_RVT = "scripts/compact_frames.py DATASET_PATH dataset=... layout=rvt writes it"
RESTORE_LINK = "Restore its target, or delete the link"
CHECK_LABELS = "Check its labels_v2 folders"
FrameFiles = Literal["compact", "rvt", "both"]  # `layout=`: which of the two files of frames are written


@dataclass(frozen=True)
class SequenceLayout:
    """Paths of one sequence's files, whether they exist or not."""

    folder: Path
    ev_repr_name: str
    frames_name: str

    @classmethod
    def of(cls, folder: Path, dataset: DatasetConfig) -> SequenceLayout:
        return cls(folder, dataset.ev_repr_name, frames_file_name(dataset))

    @property
    def boxes(self) -> Path:
        return self.folder / LABELS / "labels.npz"

    @property
    def label_times(self) -> Path:
        return self.folder / LABELS / "timestamps_us.npy"

    @property
    def representation(self) -> Path:
        return self.folder / REPRESENTATIONS / self.ev_repr_name

    @property
    def frames(self) -> Path:
        return self.representation / self.frames_name

    @property
    def compact_frames(self) -> Path:
        return compact_path(self.frames)

    def frame_files(self, which: FrameFiles) -> tuple[Path, ...]:
        """The files of frames that are asked for, the one that tells a finished sequence last."""
        return {"compact": (self.compact_frames,), "rvt": (self.frames,), "both": (self.compact_frames, self.frames)}[
            which
        ]

    @property
    def present_frames(self) -> tuple[Path, ...]:
        """The files of frames that exist, the one that is read first."""
        return tuple(path for path in self.frame_files("both") if path.is_file())

    @property
    def frame_times(self) -> Path:
        return self.representation / "timestamps_us.npy"

    @property
    def label_frames(self) -> Path:
        return self.representation / "objframe_idx_2_repr_idx.npy"


def without_frames(folder: Path, datasets: Sequence[DatasetConfig]) -> list[DatasetConfig]:
    """Those of whose size a sequence has no frames."""
    return [dataset for dataset in datasets if not SequenceLayout.of(folder, dataset).present_frames]


def frame_files_of(value: str) -> FrameFiles:
    """`layout=VALUE`. Raises UserError for another value."""
    for choice in get_args(FrameFiles):
        if value == choice:
            return choice
    raise UserError(f"layout={value}: {', '.join(get_args(FrameFiles)[:-1])} or {get_args(FrameFiles)[-1]}")


def frames_file_name(dataset: DatasetConfig) -> str:
    """RVT's names for the sensor's resolution and half of it; other sizes have theirs in the name."""
    height, width = dataset.loaded_hw
    size = {1: "", 2: "_ds2_nearest"}.get(dataset.stride or 0, f"_{height}x{width}")
    return f"event_representations{size}.h5"


def compact_path(frames_path: Path) -> Path:
    """Where the compact store of a frames file lies."""
    return frames_path.with_name(f"{frames_path.stem}_compact.h5")


def is_sequence_folder(path: Path) -> bool:
    """Whether a folder is one sequence, preprocessed in whatever representation."""
    return (path / REPRESENTATIONS).is_dir()


def may_be_sequence(entry: Path) -> bool:
    """Whether an entry of a split's folder counts as a sequence, sound or not.

    A link without its target and a folder that may not be read do; a folder without labels and frames, such as file
    systems and cloud drives leave behind (`lost+found`, `@eaDir`), does not.
    """
    if entry.name.startswith("."):
        return False
    try:
        return is_dangling(entry) or (entry / LABELS).is_dir() or is_sequence_folder(entry)
    except PermissionError:
        return entry.name != "lost+found"


def is_dangling(entry: Path) -> bool:
    """Whether an entry is a link without its target."""
    return entry.is_symlink() and not entry.exists()


def sequence_folders(split: Path) -> list[Path]:
    """The sequences of a split's folder by name; none where it does not exist."""
    return sorted(entry for entry in split.iterdir() if may_be_sequence(entry)) if split.is_dir() else []
