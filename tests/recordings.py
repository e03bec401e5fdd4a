"""Small recordings with boxes, and what preprocessing makes of them."""

from pathlib import Path

import h5py
import numpy as np

from config.loading import load_dataset_config
from config.schema import DatasetConfig
from data.boxes import BOX_DTYPE
from data.frame_store import FrameStore
from data.layout import compact_path
from data.recordings.usable import RecordingFiles
from data.sequence import Hdf5Frames

REPRESENTATION = Path("event_representations_v2/stacked_histogram_dt=50_nbins=10")
FULL, HALF = "event_representations.h5", "event_representations_ds2_nearest.h5"
COMPACT = "event_representations_compact.h5"


def small_dataset(*overrides: str) -> DatasetConfig:
    return load_dataset_config(["dataset=davis346", "dataset.resolution_hw=[20,30]", *overrides])


def write_recording(
    folder: Path, seconds: float = 1.0, label_rate_hz: float = 10, file: str = "a_td.h5", p_offset: int = 0
) -> RecordingFiles:
    """An event every ms, walking over the sensor; a car of 8 x 8 pixels at every label time."""
    t_us = np.arange(0, round(seconds * 1e6), 1000)
    columns = {
        "x": t_us // 1000 % 30,
        "y": t_us // 1000 % 20,
        "p": t_us // 1000 % 2 * (1 + p_offset) - p_offset,
        "t": t_us,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / file, "w") as events:
        for key, column in columns.items():
            events[f"events/{key}"] = column
    boxes = np.zeros(round(seconds * label_rate_hz), BOX_DTYPE)
    boxes["t"] = np.rint(np.arange(len(boxes)) * 1e6 / label_rate_hz)
    boxes["x"], boxes["y"], boxes["w"], boxes["h"], boxes["class_id"] = 5, 6, 8, 8, 2
    np.save(folder / "a_bbox.npy", boxes)
    return RecordingFiles("train", "a", folder / file, folder / "a_bbox.npy")


def read_frames(sequence: Path, name: str) -> np.ndarray:
    """Of all files that hold the frames, after a check that they have the same."""
    path, found = sequence / REPRESENTATION / name, []
    for file, reader in ((path, Hdf5Frames), (compact_path(path), FrameStore)):
        if file.is_file():
            frames = reader(file)
            found.append(np.empty((len(frames), *frames.frame_chw), np.uint8))
            frames.read(0, len(frames), found[-1])
    assert all(np.array_equal(found[0], other) for other in found)
    return found[0]


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
