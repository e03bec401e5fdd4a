"""One recording and its boxes become one sequence folder in RVT's layout."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from pydantic import TypeAdapter

from config.errors import UserError
from config.schema import DatasetConfig
from data.arrays import read_npy
from data.checks.sequence import check_sequence
from data.frame_files import add_frame_files, frame_writers, told_by
from data.layout import REPORT_KEY, RULE_KEY, SETTINGS_KEY, FrameFiles, SequenceLayout, without_frames
from data.recordings.boxes import OUTSIDE_SENSOR, BoxFilter, clean_boxes
from data.recordings.cleaning import BACKWARDS, LEAPS, OUTSIDE
from data.recordings.events import Events
from data.recordings.formats.common import Reading
from data.recordings.label_clock import boxes_of, join_stamps
from data.recordings.label_grid import FrameGrid, frame_grid
from data.recordings.recording import Recording
from data.recordings.sequence_files import move_into_place, write_frames, write_labels
from data.workplace import not_written, workplace

_YOUNGER = ("time_unit", "label_time_unit", "label_clock", "stream")
_MANY_LOST = 0.05  # of a recording's label times
PARTIAL_FOLDER = ".partial"  # in the output folder
LABEL_RULE = "from the labelled frame before"  # older sets have none: there all were measured from the first one
_DAY_US, _FAR = 86_400_000_000, "a day or more after the last event"
_TOO_EARLY = "before {} ms (dataset.preprocessing.first_label_ms)"


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


_TOLD = TypeAdapter(Report)  # as a frames file's attribute has it


def workplace_of(out: Path, files: RecordingFiles, *, wait: bool = False) -> AbstractContextManager[Path]:
    """Where OUT/<split>/<name> is written, with frames of any size."""
    name = out / PARTIAL_FOLDER / files.split / files.name
    return workplace(name, out / files.split / files.name, wait=wait)


def preprocess_recording(
    out: Path,
    dataset: DatasetConfig,
    files: RecordingFiles,
    on_frame: Callable[[], None] = lambda: None,
    *,
    sizes: Sequence[tuple[int, int]] = (),
    layout: FrameFiles = "compact",
    wait: bool = False,
) -> Report:
    """Write OUT/<split>/<name>, or leave it alone where it is finished; it appears at once and complete, or not at all.

    `sizes`: height and width of frames, where the data set's own is not meant. Those that are missing are made in one
    pass over the recording. A finished sequence that lacks a file of frames which `layout` asks for gets it, converted
    from the one that is there. A recording without a usable box gives no folder, and a report of 0 frames that says
    where its boxes went. Raises UserError for faulty files, and for a finished folder that other settings have made;
    BusyError where another process is writing it, whose end it waits for with `wait`.
    """
    target = out / files.split / files.name
    wanted = [dataset.with_frames_of(size) for size in sizes] or [dataset]
    written, finished = None, wanted
    if without_frames(target, wanted):
        try:
            with workplace_of(out, files, wait=wait) as folder:
                missing = without_frames(target, wanted)  # by now
                finished = [each for each in wanted if each not in missing]
                reports = [_finished_report(target, files, each) for each in finished]  # with the same settings
                if missing:
                    written = _write_sequence(folder / files.name, target, missing, files, layout, on_frame)
        except OSError as error:
            raise not_written(target, error) from error
    else:
        reports = [_finished_report(target, files, each) for each in wanted]
    layouts = [SequenceLayout.of(target, each) for each in finished]
    num_added = sum(add_frame_files(each, on_frame, files=layout, wait=wait) for each in layouts)
    return replace(written or reports[0], num_files_added=num_added)


def _write_sequence(
    folder: Path,
    target: Path,
    datasets: Sequence[DatasetConfig],
    files: RecordingFiles,
    layout: FrameFiles,
    on_frame: Callable[[], None],
) -> Report:
    """`datasets`: one for each size of frames, and the same in all else."""
    dataset = datasets[0]
    recording = Recording(files.events, dataset.resolution_hw, reading_of(dataset))
    report = Report(files.split, files.name)
    boxes, start_us = usable_boxes(files, dataset, recording, report)
    grid = frame_grid(np.unique(boxes["t"]), dataset.preprocessing, _window_us(dataset))
    report.notes += _labels_off_the_rhythm(files, np.unique(boxes["t"]), grid, dataset)
    if len(grid.end_us) == 0:
        early = {_TOO_EARLY.format(dataset.preprocessing.first_label_ms): len(boxes)} if len(boxes) else {}
        report.dropped_boxes |= early
        return report
    partial = [SequenceLayout.of(folder, each) for each in datasets]
    partial[0].representation.mkdir(parents=True)
    bounds_us = ((end - _window_us(dataset) + start_us, end + start_us) for end in grid.end_us.tolist())
    seen = _Seen()
    with ExitStack() as stack:
        writers = [
            (each, stack.enter_context(frame_writers(place, layout, (each.channels, *each.loaded_hw))))
            for place, each in zip(partial, datasets, strict=True)
        ]
        num_events = write_frames(writers, seen.through(recording.windows(bounds_us)), on_frame)
        grid = grid.first(len(num_events))
        check_events(files, recording, num_events[grid.labelled])
        labels, others = write_labels(partial[0], boxes, grid)
        counts = Counter(labels["class_id"].tolist())
        report.num_labelled, report.dropped_boxes = len(grid.label_us), report.dropped_boxes | others
        report.boxes_per_class = {name: counts[index] for index, name in enumerate(dataset.label_classes)}
        report.num_frames, report.num_events = len(num_events), recording.num_events
        report.num_events_in_frames = seen.num_events
        report.events_by_fault = {reason: count for reason, count in recording.faults.items() if count}
        told = {SETTINGS_KEY: _settings(dataset), RULE_KEY: LABEL_RULE, REPORT_KEY: json.dumps(asdict(report))}
        for writer in (writer for _, writers_of_size in writers for writer in writers_of_size):
            writer.attributes.update(told)
    move_into_place(partial, target)
    for each in datasets:
        _refuse_faults(target, each)  # where locks do not hold, another process may have written the same
    return report


def _refuse_faults(target: Path, dataset: DatasetConfig) -> None:
    for fault in check_sequence(target, dataset, num_samples=0).faults:
        if fault.blocks_training:
            raise UserError(f"{fault.path}: {fault.what}. Delete {target} and run this again")


class _Seen:
    """Counts the events of windows that ascend; one in two windows once."""

    def __init__(self) -> None:
        self.num_events = 0

    def through(self, windows: Iterator[Events]) -> Iterator[Events]:
        last_us = -(2**62)
        for events in windows:
            if len(events):
                self.num_events += len(events) - int(np.searchsorted(events.t_us, last_us, side="right"))
                last_us = max(last_us, int(events.t_us[-1]))
            yield events


def reading_of(dataset: DatasetConfig) -> Reading:
    return Reading(dataset.preprocessing.time_unit, dataset.preprocessing.stream)


def _settings(dataset: DatasetConfig) -> str:
    """What a sequence folder depends on, to tell a finished one from one that was made differently."""
    keys = {"classes", "representation", "resolution_hw", "preprocessing"}
    settings = dataset.model_dump(mode="json", include=keys) | {"classes": list(dataset.label_classes)}
    for key in _YOUNGER:  # than many a finished folder, which was made as without them
        if settings["preprocessing"][key] is None:
            del settings["preprocessing"][key]
    return json.dumps(settings, sort_keys=True)


def _window_us(dataset: DatasetConfig) -> int:
    return dataset.representation.window_ms * 1000


def _labels_off_the_rhythm(
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


def _finished_report(folder: Path, files: RecordingFiles, dataset: DatasetConfig) -> Report:
    """The report of a finished sequence. One that RVT's own script made carries none: then it has counts of 0."""
    target = SequenceLayout.of(folder, dataset)
    reports = [_report_of(path, target, files, dataset) for path in target.present_frames]
    _refuse_faults(folder, dataset)
    report = next((report for report in reports if report is not None), Report())
    return replace(report, split=files.split, name=files.name, was_present=True)


def _report_of(path: Path, target: SequenceLayout, files: RecordingFiles, dataset: DatasetConfig) -> Report | None:
    """The report that a file of frames carries. Raises UserError where other settings, or an older rule, made it."""
    attributes = told_by(path)
    if not attributes:
        return None
    remedy = f"Give another output folder, or delete {target.folder}"
    settings = json.loads(_settings(dataset))
    try:
        stored = json.loads(attributes.get(SETTINGS_KEY, json.dumps(settings)))
        report = _TOLD.validate_json(attributes.get(REPORT_KEY, "{}"), strict=True)
    except (ValueError, TypeError, RecursionError) as error:
        told = f"{path} tells damaged settings or a damaged report of how it was made"
        raise UserError(f"{told}. Delete {target.folder} and run this again") from error
    is_older = SETTINGS_KEY in attributes and RULE_KEY not in attributes
    if is_older:
        del settings["preprocessing"]["label_interval_follows_rate"]
    if stored != settings:
        raise UserError(f"{path} was made with other settings than this command's. {remedy}")
    if is_older and not _has_todays_labels(target, files, dataset):
        raise UserError(f"{target.folder} has labelled frames by an older rule, not RVT's. {remedy}")
    return report


def _has_todays_labels(target: SequenceLayout, files: RecordingFiles, dataset: DatasetConfig) -> bool:
    """Whether a sequence that an older version made has the labelled frames that this one would choose."""
    recording = Recording(files.events, dataset.resolution_hw, reading_of(dataset))
    boxes, _ = usable_boxes(files, dataset, recording, Report(files.split, files.name))
    chosen_us = frame_grid(np.unique(boxes["t"]), dataset.preprocessing, _window_us(dataset)).label_us
    label_us = read_npy(target.label_times, f"Delete {target.folder} and start again")
    return len(label_us) <= len(chosen_us) and np.array_equal(label_us, chosen_us[: len(label_us)])


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
