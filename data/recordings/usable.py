"""What of a recording may be used: its boxes, and its events, against each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from config.errors import UserError
from config.schema import DatasetConfig
from data.recordings.boxes import OUTSIDE_SENSOR, BoxFilter, clean_boxes
from data.recordings.cleaning import BACKWARDS, LEAPS, OUTSIDE
from data.recordings.formats.common import Reading
from data.recordings.label_clock import boxes_of, join_stamps
from data.recordings.label_grid import FrameGrid
from data.recordings.recording import Recording

_MANY_LOST = 0.05  # of a recording's label times
_DAY_US, _FAR = 86_400_000_000, "a day or more after the last event"


@dataclass(frozen=True)
class RecordingFiles:
    split: str
    name: str
    events: Path
    boxes: Path


@dataclass
class Report:
    """What became of one recording; counts of everything that was dropped or mended, by reason."""

    split: str = ""
    name: str = ""
    num_frames: int = 0
    num_labelled: int = 0
    boxes_per_class: dict[str, int] = field(default_factory=dict)
    num_events: int = 0
    events_by_fault: dict[str, int] = field(default_factory=dict)
    dropped_boxes: dict[str, int] = field(default_factory=dict)
    was_present: bool = False
    num_boxes_read: int = 0
    moved_boxes: int = 0  # to the time of their frame (`join_stamps`)
    num_events_in_frames: int = 0
    num_files_added: int = 0  # to a finished sequence, in the other layout
    notes: list[str] = field(default_factory=list)  # what was taken for true of units and clocks


def reading_of(dataset: DatasetConfig) -> Reading:
    return Reading(dataset.preprocessing.time_unit, dataset.preprocessing.stream)


def usable_boxes(
    files: RecordingFiles, dataset: DatasetConfig, recording: Recording, report: Report
) -> tuple[ndarray, int]:
    """Boxes that training and evaluation may see, and what their times count from (`LabelClock.start_us`)."""
    clock = boxes_of(files.boxes, recording, dataset.preprocessing)
    report.notes = [*(f"{files.events.name}: {note}" for note in recording.notes), *clock.notes]
    report.num_boxes_read = len(clock.boxes)
    report.moved_boxes = join_stamps(clock.boxes, dataset.preprocessing.label_jitter_ms * 1000)
    class_ids = {raw: dataset.label_classes.index(name) for raw, name in dataset.preprocessing.class_ids.items()}
    is_train = files.split == "train"
    known = BoxFilter(clock.boxes)
    if recording.last_t_us is not None:  # frames would be laid up to the last of them
        known.keep(known.boxes["t"] < recording.last_t_us - recording.clock_start_us - clock.start_us + _DAY_US, _FAR)
    boxes, dropped = clean_boxes(
        known.boxes, dataset.resolution_hw, dataset.preprocessing, class_ids, is_train=is_train
    )
    report.dropped_boxes = dict(known.dropped + dropped)
    if dropped[OUTSIDE_SENSOR] > report.num_boxes_read / 2:
        raise UserError(
            f"{files.boxes} has {dropped[OUTSIDE_SENSOR]:,} of {report.num_boxes_read:,} boxes outside a sensor of "
            f"{dataset.resolution_hw} pixels (height, width). Check dataset.resolution_hw, and that boxes are in pixels"
        )
    return boxes, clock.start_us


def check_events(files: RecordingFiles, recording: Recording, in_labelled: Int64[ndarray, " k"]) -> None:
    """`in_labelled`: number of events in each labelled frame."""
    for fault, remedy in (
        (OUTSIDE, f"Check dataset.resolution_hw, which is {recording.sensor_hw}"),
        (BACKWARDS, "Its times are damaged. Get the recording anew"),
        (LEAPS, "Its times are damaged. Get the recording anew"),
    ):
        count = recording.faults[fault]
        if count > recording.num_events / 2:
            raise UserError(f"{files.events} has {count:,} {fault} among {recording.num_events:,}. {remedy}")
    empty = int((in_labelled == 0).sum())
    if empty > len(in_labelled) / 2 or len(in_labelled) == 0:
        raise UserError(
            f"{files.events} has no events in {empty:,} of the {len(in_labelled):,} labelled frames that it reaches. "
            f"It is cut short, or its times and those of {files.boxes.name} are of different clocks. See "
            "dataset.preprocessing.label_clock, label_time_unit and time_unit"
        )


def labels_off_the_rhythm(
    files: RecordingFiles, times: Int64[ndarray, " n"], grid: FrameGrid, dataset: DatasetConfig
) -> Iterator[str]:
    """Tells of label times that no labelled frame lies near: none was a multiple of the interval after the last one."""
    times = times[times >= dataset.preprocessing.first_label_ms * 1000]
    if len(grid.label_us) == 0:
        return
    interval_us = max(dataset.preprocessing.label_interval_ms * 1000, float(np.median(np.diff(times, prepend=0))))
    since_us = times - grid.label_us[np.searchsorted(grid.label_us, times, side="right") - 1]
    lost = since_us > 2 * interval_us
    if lost.mean() > _MANY_LOST:
        yield (
            f"{files.boxes.name}: {int(lost.sum()):,} of {len(times):,} label times, from "
            f"{times[lost][0] / 1e6:,.3f} s on, are no multiple of the interval after the "
            "labelled frame before them, and so are not used, as in RVT: see "
            "dataset.preprocessing.label_interval_ms and label_jitter_ms"
        )
