"""Boxes on the clock of the events beside them: in which unit, counted from where; and whether both can be true.

Nothing here guesses in silence: where the spans of events and boxes do not fit, the recording is refused with both of
them and the setting that makes them fit. A setting that was given is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from config.errors import UserError
from config.schema import PreprocessingConfig
from data.recordings.boxes import read_boxes
from data.recordings.clock_fit import EventSpan, Said, clock_of, contradiction_of
from data.recordings.clock_remedies import readable, refusal, span_in_words
from data.recordings.recording import Recording


@dataclass(frozen=True)
class LabelClock:
    """Boxes of a recording, and what their times mean."""

    boxes: ndarray  # BOX_DTYPE; t counts from `start_us` after the recording's own start of times
    start_us: int
    notes: tuple[str, ...]


def boxes_of(path: Path, recording: Recording, settings: PreprocessingConfig) -> LabelClock:
    """Read `path` on the clock of `recording`. Raises UserError where their times contradict each other."""
    said = Said(settings.time_unit or "us", settings.label_time_unit or "us", settings.label_clock)
    boxes = read_boxes(path, said.label_unit)
    if recording.first_t_us is None:
        raise UserError(f"{recording.path} holds no events on a sensor of {recording.sensor_hw} pixels")
    if len(boxes) == 0:
        return LabelClock(boxes, 0, ())
    events = EventSpan.of(recording)
    notes = []
    if said.label_clock != "start" and _go_on_where_a_counter_starts_again(boxes["t"], events):
        notes.append(f"{path.name}: its times start again at 2^32 us, as the events' do: taken to go on")
        boxes = boxes[np.argsort(boxes["t"], kind="stable")]
    times = np.unique(boxes["t"])
    if contradiction := contradiction_of(times, events, said, settings):
        raise UserError(refusal(contradiction, path, recording, times, events, said, settings))
    clock = clock_of(times, events, said.label_clock)
    if said.label_clock is None and events.has_own_start and _is_open(times, events, recording):
        both = f"boxes at {span_in_words(times[0], times[-1])}, events at "
        both += span_in_words(events.first_us, events.last_us)
        raise UserError(
            f"{path}: its times may count from the start of {recording.path.name} or be stamps of its clock ({both}); "
            "both fit. Say which: dataset.preprocessing.label_clock=start, or recording"
        )
    if said.label_clock is None and recording.clock_start_us > 0:
        words = {"start": "taken to count from its start", "recording": "taken as stamps of its clock"}
        start = readable(recording.clock_start_us)
        notes.append(f"{path.name}: times are {words[clock]}; {recording.path.name} starts at {start}")
    if clock == "recording":
        boxes["t"] -= recording.clock_start_us
    return LabelClock(boxes, start_of(recording, settings.label_clock), tuple(notes))


def start_of(recording: Recording, label_clock: Literal["start", "recording"] | None) -> int:
    """What boxes count from, after the start of the recording's own times: 0, unless a setting says the first event."""
    return 0 if label_clock != "start" or recording.has_own_start else recording.first_t_us or 0


def _go_on_where_a_counter_starts_again(t_us: Int64[ndarray, " n"], events: EventSpan) -> bool:
    """Unwrap label times of 32 bits in place, if then more of them fit events whose counter of 32 bits has run over."""
    period = 1 << 32
    if not events.first_us < period <= events.last_us or t_us.max() >= period:
        return False
    goes_on = np.where(t_us < events.first_us - events.slack_us, t_us + period, t_us)
    if events.share(goes_on) <= max(events.share(t_us), events.share(t_us + events.start_us)):
        return False
    t_us[:] = goes_on
    return True


def _is_open(times: Int64[ndarray, " n"], events: EventSpan, recording: Recording) -> bool:
    """Both clocks fit alike, and no format decides it."""
    if recording.counts_from_defined_start or recording.clock_start_us == 0:
        return False
    return 0 < events.share(times) == events.share(times + events.start_us)


def join_stamps(boxes: ndarray, jitter_us: float) -> int:
    """Give boxes of one frame one time, the first of them; returns how many times were moved.

    Stamps of one frame follow each other within less than `jitter_us` in all. A run of close stamps that goes on for
    longer is a fast label clock, and is left alone.
    """
    times = np.unique(boxes["t"])
    if len(times) < 2 or jitter_us == 0:
        return 0
    first = np.flatnonzero(np.append(True, np.diff(times) >= jitter_us))
    last = np.append(first[1:], len(times)) - 1
    of_run = np.repeat(np.arange(len(first)), last - first + 1)
    is_frame = times[last] - times[first] < jitter_us
    joined = np.where(is_frame[of_run], times[first][of_run], times)
    moved = joined[np.searchsorted(times, boxes["t"])]
    count = int((moved != boxes["t"]).sum())
    boxes["t"] = moved
    return count
