"""The files of one sequence folder in RVT's layout, with a compact frame store beside the frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hdf5plugin
import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from config.errors import UserError
from config.schema import DatasetConfig
from data.arrays import read_npy, read_npz
from data.frame_store import FrameStoreWriter
from data.hdf5_file import Hdf5Writer
from data.layout import BOXES_KEY, FIRST_BOX_KEY, FRAMES_KEY, SequenceLayout
from data.recordings.events import Events
from data.recordings.label_grid import FrameGrid
from data.recordings.representation import add_stacked_histogram, stride_of

_BEFORE_FIRST = "before the first labelled frame"
_AFTER_LAST = "after the last labelled frame"
_BETWEEN = "between labelled frames"


def write_frames(
    target: SequenceLayout, windows: Iterator[Events], num_windows: int, dataset: DatasetConfig,
    on_frame: Callable[[], None],
) -> Int64[ndarray, " frames"]:  # fmt: skip
    """Write both files of frames; returns the number of events in each, fewer than wanted where the recording ends."""
    frame = np.empty((dataset.channels, *dataset.loaded_hw), np.uint8)
    stride = stride_of(dataset)
    num_events = []
    with Hdf5Writer(target.frames) as writer, FrameStoreWriter(target.compact_frames, frame.shape) as compact:
        data = writer.file.create_dataset(
            FRAMES_KEY,
            shape=(num_windows, *frame.shape),
            maxshape=(None, *frame.shape),
            chunks=(1, *frame.shape),
            dtype=np.uint8,
            fletcher32=True,
            **hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE),
        )
        for index, events in enumerate(windows):
            frame.fill(0)
            cutoff = dataset.representation.count_cutoff
            add_stacked_histogram(events.x, events.y, events.polarity, events.t_us, cutoff, stride, frame)
            data[index] = frame
            writer.check()
            compact.append(frame)
            num_events.append(len(events))
            on_frame()
        data.resize(len(num_events), axis=0)
    return np.array(num_events, np.int64)


def write_labels(target: SequenceLayout, boxes: ndarray, grid: FrameGrid) -> tuple[ndarray, Counter[str]]:
    """Write labels and times. Returns the boxes of labelled frames, and how many others there are, by reason."""
    labels = boxes[np.isin(boxes["t"], grid.label_us)]
    first_label = np.searchsorted(labels["t"], grid.label_us)
    target.boxes.parent.mkdir()
    arrays: dict[str, Any] = {BOXES_KEY: labels, FIRST_BOX_KEY: first_label}
    np.savez(target.boxes, **arrays)
    np.save(target.label_times, grid.label_us)
    np.save(target.frame_times, grid.end_us)
    np.save(target.label_frames, grid.labelled)
    early, late = (int(count.sum()) for count in (boxes["t"] < grid.label_us[0], boxes["t"] > grid.label_us[-1]))
    others = {_BEFORE_FIRST: early, _AFTER_LAST: late, _BETWEEN: len(boxes) - len(labels) - early - late}
    return labels, Counter({reason: count for reason, count in others.items() if count})


def move_into_place(partial: SequenceLayout, target: SequenceLayout) -> None:
    """By renaming. Where the sequence exists at the other resolution, only the frames join it, the file that tells a
    finished sequence last.
    """
    if not target.folder.exists():
        target.folder.parent.mkdir(parents=True, exist_ok=True)
        partial.folder.rename(target.folder)
        return
    for path in sorted(partial.folder.rglob("*.np[yz]")):
        if not _have_equal_arrays(path, target.folder / path.relative_to(partial.folder)):
            raise UserError(
                f"{target.folder} exists already, with other labels or times than this command gives. "
                "Give another output folder, or delete this one"
            )
    partial.compact_frames.replace(target.compact_frames)
    partial.frames.replace(target.frames)


def _have_equal_arrays(path: Path, other: Path) -> bool:
    if not other.is_file():
        return False
    remedy = "Delete its sequence's folder and start again"
    if path.suffix == ".npy":
        return np.array_equal(read_npy(path, remedy), read_npy(other, remedy))
    names = (BOXES_KEY, FIRST_BOX_KEY)
    return all(map(np.array_equal, read_npz(path, names, remedy), read_npz(other, names, remedy)))
