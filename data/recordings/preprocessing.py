"""One recording and its boxes become one sequence folder in RVT's layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from config.schema import DatasetConfig
from data.frame_files import add_frame_files, frame_writers
from data.layout import FrameFiles, SequenceLayout, without_frames
from data.recordings.events import Events
from data.recordings.finished import attributes_of, finished_report, refuse_faults
from data.recordings.label_grid import frame_grid
from data.recordings.recording import Recording
from data.recordings.sequence_files import move_into_place, write_frames, write_labels
from data.recordings.usable import (
    RecordingFiles,
    Report,
    check_events,
    labels_off_the_rhythm,
    reading_of,
    usable_boxes,
)
from data.workplace import not_written, workplace

PARTIAL_FOLDER = ".partial"  # in the output folder
_TOO_EARLY = "before {} ms (dataset.preprocessing.first_label_ms)"


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
                reports = [finished_report(target, files, each) for each in finished]  # with the same settings
                if missing:
                    written = _write_sequence(folder / files.name, target, missing, files, layout, on_frame)
        except OSError as error:
            raise not_written(target, error) from error
    else:
        reports = [finished_report(target, files, each) for each in wanted]
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
    grid = frame_grid(np.unique(boxes["t"]), dataset.preprocessing, dataset.representation.window_us)
    report.notes += labels_off_the_rhythm(files, np.unique(boxes["t"]), grid, dataset)
    if len(grid.end_us) == 0:
        early = {_TOO_EARLY.format(dataset.preprocessing.first_label_ms): len(boxes)} if len(boxes) else {}
        report.dropped_boxes |= early
        return report
    partial = [SequenceLayout.of(folder, each) for each in datasets]
    partial[0].representation.mkdir(parents=True)
    bounds_us = ((end - dataset.representation.window_us + start_us, end + start_us) for end in grid.end_us.tolist())
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
        for writer in (writer for _, writers_of_size in writers for writer in writers_of_size):
            writer.attributes.update(attributes_of(report, dataset))
    move_into_place(partial, target)
    for each in datasets:
        refuse_faults(target, each)  # where locks do not hold, another process may have written the same
    return report


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
