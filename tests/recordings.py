"""Small recordings with boxes, and what preprocessing makes of them."""

from pathlib import Path

import h5py
import numpy as np

from config.loading import load_dataset_config
from config.schema import DatasetConfig
from data.boxes import BOX_DTYPE
from data.frame_store import FrameStore
from data.layout import compact_path
from data.recordings.preprocessing import RecordingFiles

REPRESENTATION = Path("event_representations_v2/stacked_histogram_dt=50_nbins=10")
FULL, HALF = "event_representations.h5", "event_representations_ds2_nearest.h5"


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
    """Of the reference's file, after a check that the compact one has the same."""
    with h5py.File(sequence / REPRESENTATION / name) as file:
        frames = file["data"][:]
    store = FrameStore(compact_path(sequence / REPRESENTATION / name))
    compact = np.empty_like(frames)
    store.read(0, len(store), compact)
    assert np.array_equal(compact, frames)
    return frames


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
