"""Recordings of noise that lies as events do: a few pixels have most of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy import ndarray

from config.loading import load_dataset_config
from data.recordings.preprocessing import preprocess_recording
from data.recordings.usable import RecordingFiles

WINDOW_US = 50_000
BOXES_PER_LABEL = 8
_BOX_FIELDS = [("t", "<i8"), *((name, "<f4") for name in "xywh"), ("class_id", "<u4"), ("track_id", "<u4")]


@dataclass(frozen=True)
class Scene:
    """What a recording is like."""

    sensor_hw: tuple[int, int] = (720, 1280)
    num_windows: int = 20
    events_per_window: int = 300_000

    @property
    def overrides(self) -> list[str]:
        """The data set that it belongs to."""
        return ["dataset=gen4", "dataset.resolution_hw=[{},{}]".format(*self.sensor_hw)]

    @property
    def description(self) -> str:
        return f"{self.events_per_window:,} events a window"

    def events(self, num_windows: int, rng: np.random.Generator) -> dict[str, ndarray]:
        """Columns x, y, p, t of events, in order of time."""
        height, width = self.sensor_hw
        count = num_windows * self.events_per_window
        pixel = rng.choice(height * width, count, p=_event_rates(self.sensor_hw, rng).ravel())
        y, x = (axis.astype(np.uint16) for axis in np.divmod(pixel, width))
        t_us = np.sort(rng.integers(0, num_windows * WINDOW_US, count))
        return {"x": x, "y": y, "p": rng.integers(0, 2, count).astype(np.uint8), "t": t_us}

    def record(self, path: Path, seed: int = 0) -> RecordingFiles:
        """Write a recording, and boxes at 30 Hz from its first window to its last."""
        rng = np.random.default_rng(seed)
        events, boxes = path.with_name(f"{path.name}_td.h5"), path.with_name(f"{path.name}_bbox.npy")
        with h5py.File(events, "w") as file:
            for name, column in self.events(self.num_windows, rng).items():
                file[f"events/{name}"] = column
        t_us = np.repeat(np.arange(100_000, self.num_windows * WINDOW_US, 33_333), BOXES_PER_LABEL)
        rows = np.zeros(len(t_us), _BOX_FIELDS)
        rows["t"], rows["class_id"] = t_us, rng.integers(0, 8, len(t_us))
        rows["w"], rows["h"] = rng.uniform(0.05, 0.2, (2, len(t_us))) * self.sensor_hw[1]
        rows["x"] = rng.uniform(0, self.sensor_hw[1] - rows["w"])
        rows["y"] = rng.uniform(0, (self.sensor_hw[0] - rows["h"]).clip(1))
        np.save(boxes, rows)
        return RecordingFiles("train", path.name, events, boxes)

    def prepare(self, folder: Path, num_recordings: int) -> list[str]:
        """Fill FOLDER/data from recordings in FOLDER, the training split also serving for validation.

        Returns the overrides of a config that reads it.
        """
        dataset = load_dataset_config(self.overrides)
        for number in range(num_recordings):
            files = self.record(folder / f"recording_{number}", seed=number)
            preprocess_recording(folder / "data", dataset, files, layout="both")  # each way of loading reads its own
        (folder / "data" / "val").symlink_to("train")
        return [*self.overrides, f"dataset.path={folder / 'data'}"]


def _event_rates(hw: tuple[int, int], rng: np.random.Generator) -> ndarray:
    """Activity of the pixels, summing to 1: smooth noise, exponentiated."""
    spectrum = np.fft.rfft2(rng.normal(size=hw))
    frequency = np.hypot(np.fft.fftfreq(hw[0])[:, None], np.fft.rfftfreq(hw[1]))
    smooth = np.fft.irfft2(spectrum * np.exp(-((40 * frequency) ** 2)), s=hw)
    rates = np.exp(2 * smooth / smooth.std())
    return rates / rates.sum()
