"""Recordings of noise that lies as events do: a few pixels have most of them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy import ndarray

from config.loading import load_dataset_config
from config.schema import DatasetConfig
from data.preprocessing import RecordingFiles, preprocess_recording

SENSOR_HW = (720, 1280)
WINDOW_US = 50_000
BOXES_PER_LABEL = 8
_BOX_FIELDS = [("t", "<i8"), *((name, "<f4") for name in "xywh"), ("class_id", "<u4"), ("track_id", "<u4")]


def event_rates(hw: tuple[int, int], rng: np.random.Generator) -> ndarray:
    """Activity of the pixels, summing to 1: smooth noise, exponentiated."""
    spectrum = np.fft.rfft2(rng.normal(size=hw))
    frequency = np.hypot(np.fft.fftfreq(hw[0])[:, None], np.fft.rfftfreq(hw[1]))
    smooth = np.fft.irfft2(spectrum * np.exp(-((40 * frequency) ** 2)), s=hw)
    rates = np.exp(2 * smooth / smooth.std())
    return rates / rates.sum()


def draw_events(num_events: int, span_us: int, rng: np.random.Generator) -> dict[str, ndarray]:
    """Columns x, y, p, t of events over `span_us`, in order of time."""
    pixel = rng.choice(SENSOR_HW[0] * SENSOR_HW[1], num_events, p=event_rates(SENSOR_HW, rng).ravel())
    y, x = (axis.astype(np.uint16) for axis in np.divmod(pixel, SENSOR_HW[1]))
    t_us = np.sort(rng.integers(0, span_us, num_events))
    return {"x": x, "y": y, "p": rng.integers(0, 2, num_events).astype(np.uint8), "t": t_us}


def write_recording(path: Path, num_windows: int, events_per_window: int, seed: int = 0) -> RecordingFiles:
    """A recording in HDF5 with boxes at 30 Hz, from its first window to its last."""
    rng = np.random.default_rng(seed)
    events, boxes = path.with_name(f"{path.name}_td.h5"), path.with_name(f"{path.name}_bbox.npy")
    with h5py.File(events, "w") as file:
        for name, column in draw_events(num_windows * events_per_window, num_windows * WINDOW_US, rng).items():
            file[f"events/{name}"] = column
    t_us = np.repeat(np.arange(100_000, num_windows * WINDOW_US, 33_333), BOXES_PER_LABEL)
    rows = np.zeros(len(t_us), _BOX_FIELDS)
    rows["t"], rows["class_id"] = t_us, rng.integers(0, 8, len(t_us))
    rows["w"], rows["h"] = rng.uniform(20, 200, (2, len(t_us)))
    rows["x"] = rng.uniform(0, SENSOR_HW[1] - rows["w"])
    rows["y"] = rng.uniform(0, SENSOR_HW[0] - rows["h"])
    np.save(boxes, rows)
    return RecordingFiles("train", path.name, events, boxes)


def prepare_data_set(folder: Path, num_recordings: int, num_windows: int, events_per_window: int) -> DatasetConfig:
    """FOLDER/data, preprocessed from recordings in FOLDER; a copy of the training split serves for validation."""
    dataset = load_dataset_config(["dataset=gen4", f"dataset.path={folder / 'data'}"])
    for number in range(num_recordings):
        files = write_recording(folder / f"recording_{number}", num_windows, events_per_window, seed=number)
        preprocess_recording(folder / "data", dataset, files)
    (folder / "data" / "val").symlink_to("train")
    return dataset
