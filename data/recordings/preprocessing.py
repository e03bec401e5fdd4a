"""One recording and its boxes become one sequence folder in RVT's layout, with a compact frame store beside it."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from numpy import ndarray

from config.errors import UserError
from config.schema import DatasetConfig
from data.frame_store import FrameStoreWriter
from data.layout import BOXES_KEY, FIRST_BOX_KEY, FRAMES_KEY, SequenceLayout
from data.recordings.boxes import clean_boxes, read_boxes
from data.recordings.cleaning import BACKWARDS, LEAPS, OUTSIDE
from data.recordings.formats.common import Reading
from data.recordings.label_grid import FrameGrid, frame_grid
from data.recordings.recording import Recording
from data.recordings.representation import add_stacked_histogram

PARTIAL_FOLDER = ".partial"  # in the output folder; what a killed run leaves there is removed when its turn comes again
_LONGEST_US = 48 * 3_600_000_000
_AFTER_LAST = "after the last labelled frame"
_BETWEEN = "between labelled frames, or before the first"


@dataclass(frozen=True)
class RecordingFiles:
    split: str
    name: str
    events: Path
    boxes: Path


@dataclass
class Report:
    """What became of one recording; counts of everything that was dropped or mended, by reason."""

    split: str
    name: str
    num_frames: int = 0
    num_labelled: int = 0
    boxes_per_class: dict[str, int] = field(default_factory=dict)
    num_events: int = 0
    events_by_fault: dict[str, int] = field(default_factory=dict)
    dropped_boxes: dict[str, int] = field(default_factory=dict)
    was_present: bool = False


def preprocess_recording(
    out: Path, dataset: DatasetConfig, files: RecordingFiles, on_frame: Callable[[], None] = lambda: None
) -> Report:
    """Write OUT/<split>/<name>, or leave it alone where it is finished; it appears at once and complete, or not at all.

    A recording without a usable box gives no folder, and a report of 0 frames. Raises UserError for faulty files, and
    for a finished folder that other settings have made.
    """
    target = SequenceLayout.of(out / files.split / files.name, dataset)
    settings = _settings(dataset)
    if target.frames.is_file():
        return _finished_report(target.frames, files, settings)
    recording = Recording(files.events, dataset.resolution_hw, reading_of(dataset))
    report = Report(files.split, files.name)
    boxes = _usable_boxes(files, dataset, recording.clock_start_us, report)
    grid = frame_grid(np.unique(boxes["t"]), dataset.preprocessing, _window_us(dataset))
    if len(grid.end_us) == 0:
        return report
    partial = SequenceLayout.of(out / PARTIAL_FOLDER / files.split / f"{files.name}.{os.getpid()}", dataset)
    try:
        for remains in partial.folder.parent.glob(f"{glob.escape(files.name)}.*"):
            shutil.rmtree(remains, ignore_errors=True)
        partial.representation.mkdir(parents=True)
        num_frames = _write_frames(partial, recording, grid, dataset, on_frame)
        _check_events(files, recording, num_frames > grid.labelled[0])
        _write_labels(partial, boxes, grid.first(num_frames), dataset, report)
        report.num_frames, report.num_events = num_frames, recording.num_events
        report.events_by_fault = {reason: count for reason, count in recording.faults.items() if count}
        with h5py.File(partial.frames, "r+") as file:
            file.attrs.update(settings=settings, report=json.dumps(asdict(report)))
        _move_into_place(partial, target)
    except OSError as error:  # those of reading are UserErrors by now
        raise UserError(f"{target.folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial.folder, ignore_errors=True)
    return report


def reading_of(dataset: DatasetConfig) -> Reading:
    return Reading(dataset.preprocessing.time_unit, dataset.preprocessing.stream)


def _settings(dataset: DatasetConfig) -> str:
    """What a sequence folder depends on, to tell a finished one from one that was made differently."""
    keys = {"classes", "representation", "resolution_hw", "preprocessing"}
    settings = dataset.model_dump(mode="json", include=keys)
    for key in ("time_unit", "stream"):  # younger than many a finished folder, which was made as without them
        if settings["preprocessing"][key] is None:
            del settings["preprocessing"][key]
    return json.dumps(settings, sort_keys=True)


def _window_us(dataset: DatasetConfig) -> int:
    return dataset.representation.window_ms * 1000


def _finished_report(frames_path: Path, files: RecordingFiles, settings: str) -> Report:
    """The report of a finished sequence. One that RVT's own script made carries none: then it has counts of 0."""
    try:
        with h5py.File(frames_path, "r", locking=False) as file:
            if file.attrs.get("settings", settings) != settings:
                raise UserError(
                    f"{frames_path} was made with other settings than this command's. "
                    "Give another output folder, or delete this one"
                )
            stored = json.loads(file.attrs.get("report", "{}"))
    except OSError as error:
        raise UserError(f"{frames_path} is damaged ({error}). Delete its sequence folder and start again") from error
    return Report(**{**stored, "split": files.split, "name": files.name, "was_present": True})


def _usable_boxes(files: RecordingFiles, dataset: DatasetConfig, clock_start_us: int, report: Report) -> ndarray:
    boxes = read_boxes(files.boxes)
    if len(boxes) and clock_start_us > 0 and boxes["t"][0] >= clock_start_us:
        boxes["t"] -= clock_start_us  # stamped with the file's own clock, not from its start
    if len(boxes) and boxes["t"][-1] > _LONGEST_US:
        hours = boxes["t"][-1] / 3.6e9
        raise UserError(f"{files.boxes} has a box {hours:,.0f} hours after the recording's start. Box times are in us")
    class_ids = {raw: dataset.classes.index(name) for raw, name in dataset.preprocessing.class_ids.items()}
    is_train = files.split == "train"
    boxes, dropped = clean_boxes(boxes, dataset.resolution_hw, dataset.preprocessing, class_ids, is_train=is_train)
    report.dropped_boxes = dict(dropped)
    return boxes


def _write_frames(
    target: SequenceLayout, recording: Recording, grid: FrameGrid, dataset: DatasetConfig, on_frame: Callable[[], None]
) -> int:
    """Write both files of frames; returns how many there are, fewer than the grid's where the recording ends early."""
    frame = np.empty((dataset.channels, *dataset.frame_hw), np.uint8)
    bounds_us = ((end - _window_us(dataset), end) for end in grid.end_us.tolist())
    stride = 2 if dataset.downsample_by_factor_2 else 1
    num_frames = 0
    with h5py.File(target.frames, "w") as file, FrameStoreWriter(target.compact_frames, frame.shape) as compact:
        data = file.create_dataset(
            FRAMES_KEY,
            shape=(len(grid.end_us), *frame.shape),
            maxshape=(None, *frame.shape),
            chunks=(1, *frame.shape),
            dtype=np.uint8,
            fletcher32=True,
            **hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE),
        )
        for events in recording.windows(bounds_us):
            frame.fill(0)
            cutoff = dataset.representation.count_cutoff
            add_stacked_histogram(events.x, events.y, events.polarity, events.t_us, cutoff, stride, frame)
            data[num_frames] = frame
            compact.append(frame)
            num_frames += 1
            on_frame()
        data.resize(num_frames, axis=0)
    return num_frames


def _check_events(files: RecordingFiles, recording: Recording, reaches_labels: bool) -> None:
    for fault, remedy in (
        (OUTSIDE, f"Check dataset.resolution_hw, which is {recording.sensor_hw}"),
        (BACKWARDS, "Its times are damaged. Get the recording anew"),
        (LEAPS, "Its times are damaged. Get the recording anew"),
    ):
        count = recording.faults[fault]
        if count > recording.num_events / 2:
            raise UserError(f"{files.events} has {count:,} {fault} among {recording.num_events:,}. {remedy}")
    if not reaches_labels:
        raise UserError(
            f"{files.events} has no events up to its first box: it is cut short, or its times and those of "
            f"{files.boxes.name} are of different clocks"
        )


def _write_labels(
    target: SequenceLayout, boxes: ndarray, grid: FrameGrid, dataset: DatasetConfig, report: Report
) -> None:
    labels = boxes[np.isin(boxes["t"], grid.label_us)]
    first_label = np.searchsorted(labels["t"], grid.label_us)
    target.boxes.parent.mkdir()
    np.savez(target.boxes, **{BOXES_KEY: labels, FIRST_BOX_KEY: first_label})
    np.save(target.label_times, grid.label_us)
    np.save(target.frame_times, grid.end_us)
    np.save(target.label_frames, grid.labelled)
    report.num_labelled = len(grid.label_us)
    counts = Counter(labels["class_id"].tolist())
    report.boxes_per_class = {name: counts[index] for index, name in enumerate(dataset.classes)}
    late = int((boxes["t"] > grid.label_us[-1]).sum())
    others = {_AFTER_LAST: late, _BETWEEN: len(boxes) - len(labels) - late}
    report.dropped_boxes |= {reason: count for reason, count in others.items() if count}


def _move_into_place(partial: SequenceLayout, target: SequenceLayout) -> None:
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
    mine, theirs = np.load(path), np.load(other)
    if path.suffix == ".npy":
        return np.array_equal(mine, theirs)
    return all(key in theirs and np.array_equal(mine[key], theirs[key]) for key in mine)
