"""The files of one sequence folder in RVT's layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from config.errors import UserError
from config.schema import DatasetConfig
from data.arrays import read_npy, read_npz
from data.frame_files import FrameWriter
from data.layout import BOXES_KEY, FIRST_BOX_KEY, SequenceLayout
from data.recordings.events import Events
from data.recordings.label_grid import FrameGrid
from data.recordings.representation import count_window

_BEFORE_FIRST = "before the first labelled frame"
_AFTER_LAST = "after the last labelled frame"
_BETWEEN = "between labelled frames"


def write_frames(
    writers: Sequence[tuple[DatasetConfig, Collection[FrameWriter]]],
    windows: Iterable[Events],
    on_frame: Callable[[], None],
) -> Int64[ndarray, " frames"]:
    """Append a frame of each window, of every data set's size, to its writers; returns the number of events in each."""
    frames = [np.empty((dataset.channels, *dataset.loaded_hw), np.uint8) for dataset, _ in writers]
    num_events = []
    for events in windows:
        for frame, (dataset, writers_of_size) in zip(frames, writers, strict=True):
            frame.fill(0)
            count_window(events, dataset.representation.count_cutoff, dataset.resolution_hw, frame)
            for writer in writers_of_size:
                writer.append(frame)
        num_events.append(len(events))
        on_frame()
    return np.array(num_events, np.int64)


def write_labels(target: SequenceLayout, boxes: ndarray, grid: FrameGrid) -> tuple[ndarray, Counter[str]]:
    """Write labels and times. Returns the boxes of labelled frames, and how many others there are, by reason."""
    chosen = boxes[np.isin(boxes["t"], grid.label_us)]
    labels = np.zeros(len(chosen), chosen.dtype)  # with the gaps between fields, which else hold what was in memory
    for name in chosen.dtype.names or ():
        labels[name] = chosen[name]
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


def move_into_place(partial: Sequence[SequenceLayout], target: Path) -> None:
    """Rename one folder's files, of one or more sizes of frames. Where the sequence exists with others, only the frames
    join it, of each size the file that tells a finished one last.
    """
    folder = partial[0].folder
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        return
    for path in sorted(folder.rglob("*.np[yz]")):
        if not _have_equal_arrays(path, target / path.relative_to(folder)):
            raise UserError(
                f"{target} exists already, with other labels or times than this command gives. "
                "Give another output folder, or delete this one"
            )
    for path in (path for layout in partial for path in layout.present_frames):
        path.replace(target / path.relative_to(folder))


def _have_equal_arrays(path: Path, other: Path) -> bool:
    if not other.is_file():
        return False
    remedy = "Delete its sequence's folder and start again"
    if path.suffix == ".npy":
        return np.array_equal(read_npy(path, remedy), read_npy(other, remedy))
    names = (BOXES_KEY, FIRST_BOX_KEY)
    return all(map(np.array_equal, read_npz(path, names, remedy), read_npz(other, names, remedy)))
