"""Boxes on the clock of the events beside them: in which unit, counted from where; and whether both can be true.

Nothing here guesses in silence: where the spans of events and boxes do not fit, the recording is refused with both of
them and the setting that makes them fit. A setting that was given is believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from config.errors import UserError
from config.schema import PreprocessingConfig
from data.recordings.boxes import read_boxes
from data.recordings.event_files import takes_time_unit
from data.recordings.formats.common import TICKS_PER_S, TimeUnit
from data.recordings.recording import RUNNING_CLOCK_US, TAIL_US, Recording

_UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)
_FEW, _MOST = 0.1, 0.9  # shares of label times
_SHRUNK = 200  # labels whose span is so many times shorter than the events' may be in another unit
_FAR = 2**61  # so that sums of times fit into 64 bits
_LABEL_GAPS_US = (1_000, 60_000_000)  # between the label times of a camera


@dataclass(frozen=True)
class LabelClock:
    """Boxes of a recording, and what their times mean."""

    boxes: ndarray  # BOX_DTYPE; t counts from `start_us` after the recording's own start of times
    start_us: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Said:
    """What is taken for true of the times: settings, or a guess at settings."""

    time_unit: TimeUnit
    label_unit: TimeUnit
    label_clock: str | None


@dataclass(frozen=True)
class _Events:
    """Span of the events on the file's own clock, and where boxes count from unless they have its stamps."""

    first_us: int
    last_us: int
    start_us: int
    has_own_start: bool  # the format, or a running clock, tells the start; else boxes and events count from 0

    @classmethod
    def of(cls, recording: Recording) -> _Events:
        assert recording.first_t_us is not None
        has_own_start = recording.clock_start_us > 0 or recording.counts_from_defined_start
        start_us = recording.clock_start_us if has_own_start else recording.first_t_us
        return cls(recording.first_t_us, recording.last_t_us or recording.first_t_us, start_us, has_own_start)

    @property
    def slack_us(self) -> int:
        return min(TAIL_US, self.last_us - self.first_us)

    def share(self, t_us: Int64[ndarray, " n"], *, strict: bool = False) -> float:
        """Of times on the file's own clock, how many lie within the span, or close to it."""
        slack_us = 0 if strict else self.slack_us
        inside = (t_us >= self.first_us - slack_us) & (t_us <= self.last_us + slack_us)
        return float(inside.mean())


def boxes_of(path: Path, recording: Recording, settings: PreprocessingConfig) -> LabelClock:
    """Read `path` on the clock of `recording`. Raises UserError where their times contradict each other."""
    said = _Said(settings.time_unit or "us", settings.label_time_unit or "us", settings.label_clock)
    boxes = read_boxes(path, said.label_unit)
    if recording.first_t_us is None:
        raise UserError(f"{recording.path} holds no events on a sensor of {recording.sensor_hw} pixels")
    if len(boxes) == 0:
        return LabelClock(boxes, 0, ())
    events = _Events.of(recording)
    notes = []
    if said.label_clock != "start" and _go_on_where_a_counter_starts_again(boxes["t"], events):
        notes.append(f"{path.name}: its times start again at 2^32 us, as the events' do: taken to go on")
        boxes = boxes[np.argsort(boxes["t"], kind="stable")]
    times = np.unique(boxes["t"])
    if contradiction := _contradiction(times, events, said, settings):
        raise UserError(_refusal(contradiction, path, recording, times, events, said, settings))
    clock = _clock(times, events, said.label_clock)
    if said.label_clock is None and events.has_own_start and _is_open(times, events, recording):
        raise UserError(
            f"{path}: its times ({_span(times[0], times[-1])}) may count from the start of {recording.path.name} or be "
            f"stamps of its clock ({_span(events.first_us, events.last_us)}); both fit. Say which: "
            "dataset.preprocessing.label_clock=start, or recording"
        )
    if said.label_clock is None and recording.clock_start_us > 0:
        words = {"start": "taken to count from its start", "recording": "taken as stamps of its clock"}
        start = _readable(recording.clock_start_us)
        notes.append(f"{path.name}: times are {words[clock]}; {recording.path.name} starts at {start}")
    if clock == "recording":
        boxes["t"] -= recording.clock_start_us
    return LabelClock(boxes, start_of(recording, settings), tuple(notes))


def start_of(recording: Recording, settings: PreprocessingConfig) -> int:
    """What boxes count from, after the start of the recording's own times: 0, unless a setting says the first event."""
    if settings.label_clock != "start" or recording.first_t_us is None:
        return 0
    return _Events.of(recording).start_us - recording.clock_start_us


def _go_on_where_a_counter_starts_again(t_us: Int64[ndarray, " n"], events: _Events) -> bool:
    """Unwrap label times of 32 bits in place, if then more of them fit events whose counter of 32 bits has run over."""
    period = 1 << 32
    if not events.first_us < period <= events.last_us or t_us.max() >= period:
        return False
    goes_on = np.where(t_us < events.first_us - events.slack_us, t_us + period, t_us)
    if events.share(goes_on) <= max(events.share(t_us), events.share(t_us + events.start_us)):
        return False
    t_us[:] = goes_on
    return True


def _clock(times: Int64[ndarray, " n"], events: _Events, label_clock: str | None) -> str:
    """`start` or `recording`. Where nobody says it, all label times decide, the start where both fit alike."""
    if label_clock is not None:
        return label_clock
    if not events.has_own_start:
        return "recording"
    return "recording" if events.share(times) > events.share(times + events.start_us) else "start"


def _is_open(times: Int64[ndarray, " n"], events: _Events, recording: Recording) -> bool:
    """Both clocks fit alike, and no format decides it."""
    if recording.counts_from_defined_start or recording.clock_start_us == 0:
        return False
    return 0 < events.share(times) == events.share(times + events.start_us)


def _contradiction(
    times: Int64[ndarray, " n"], events: _Events, said: _Said, settings: PreprocessingConfig
) -> str | None:
    """What about ascending label times cannot be; None where all may be well."""
    clock = _clock(times, events, said.label_clock)
    on_file = times + events.start_us if clock == "start" else times
    share = events.share(on_file)
    length_us, labels_us = events.last_us - events.first_us, int(on_file[-1] - on_file[0])
    covered_us = min(on_file[-1], events.last_us) - max(on_file[0], events.first_us)
    if share < _FEW or (share < 0.5 and covered_us < length_us / 2):
        return f"{round(share * len(times)):,} of its {len(times):,} times lie among the events'"
    is_unit_given = settings.label_time_unit is not None or settings.time_unit is not None
    if not is_unit_given and len(times) > 1 and labels_us * _SHRUNK < length_us:
        longest_us = 1.05 * length_us + 2 * events.slack_us
        if any(length_us / 10 <= labels_us * ratio <= longest_us for ratio in (10**3, 10**6, 10**9)):
            return "they span a tiny part of the events, as if one of both were in another unit"
    if said.label_clock is None and not events.has_own_start:
        early = float((on_file < events.first_us).mean())
        shifted = events.share(on_file + events.first_us, strict=True)
        if early > _FEW and shifted >= _MOST and shifted > events.share(on_file, strict=True):
            count = int((on_file < events.first_us).sum())
            return f"{count:,} of its {len(times):,} times lie before the first event"
    return None


def _refusal(
    contradiction: str, path: Path, recording: Recording, times: Int64[ndarray, " n"],
    events: _Events, said: _Said, settings: PreprocessingConfig,
) -> str:  # fmt: skip
    found = list(dict.fromkeys(_remedies(path, recording, events, said, settings)))
    remedy = (
        "Most likely " + ", or ".join(f"{cause}: add {keys}" for cause, keys in found)
        if found
        else "No unit and no start explains it: are these boxes of another recording, or is one of both cut? Subtract "
        "the start of the recording from t of the boxes"
    )
    if contradiction.endswith("unit") or "before the first" in contradiction:
        true = "label_time_unit=us" if contradiction.endswith("unit") else "label_clock=recording"
        remedy += f". If the times are right as they are, say so by dataset.preprocessing.{true}"
    return (
        f"{path}: its times do not fit the events of {recording.path.name}: boxes at {_span(times[0], times[-1])}, "
        f"events at {_span(events.first_us, events.last_us)}; {contradiction}. {remedy}"
    )


def _remedies(
    path: Path, recording: Recording, events: _Events, said: _Said, settings: PreprocessingConfig
) -> Iterator[tuple[str, str]]:
    """Likely causes, each with the settings that remove it: the fewest, and of these the most plausible."""
    event_units = _UNITS if settings.time_unit is None and takes_time_unit(recording.path) else (said.time_unit,)
    label_units = _UNITS if settings.label_time_unit is None else (said.label_unit,)
    clocks = (None, "start", "recording") if said.label_clock is None else (said.label_clock,)
    times_in = {unit: np.unique(read_boxes(path, unit)["t"]) for unit in label_units}
    ranked: list[tuple[tuple[int, bool], tuple[str, str]]] = []
    for event_unit, label_unit, clock in product(event_units, label_units, clocks):
        guess = _Said(event_unit, label_unit, clock)
        changes = [a != b for a, b in ((event_unit, said.time_unit), (label_unit, said.label_unit))]
        changes.append(clock != said.label_clock)
        spans, times = _in_unit(events, said.time_unit, event_unit), times_in[label_unit]
        if clock == "recording" != said.label_clock and not spans.has_own_start:
            continue  # the same as without it
        if sum(changes) in (0, 3) or not _fits(times, spans, guess, settings):
            continue
        gap_us = (times[-1] - times[0]) / max(len(times) - 1, 1)
        is_odd = len(times_in[said.label_unit]) > 1 and not _LABEL_GAPS_US[0] <= gap_us <= _LABEL_GAPS_US[1]
        ranked.append(((sum(changes), is_odd), _in_words(guess, changes)))
    for rank, words in ranked:
        if rank == min(other for other, _ in ranked):
            yield words


def _in_unit(events: _Events, unit: TimeUnit, other: TimeUnit) -> _Events:
    """The span as it is where the file's numbers mean another unit; only formats that define no start leave it open."""
    if unit == other:
        return events
    ends = (t * TICKS_PER_S[unit] // TICKS_PER_S[other] for t in (events.first_us, events.last_us))
    first, last = (min(max(t, -_FAR), _FAR) for t in ends)
    return _Events(first, last, first, has_own_start=first > RUNNING_CLOCK_US)


def _fits(times: Int64[ndarray, " n"], events: _Events, guess: _Said, settings: PreprocessingConfig) -> bool:
    if _contradiction(times, events, guess, settings):
        return False
    clock = _clock(times, events, guess.label_clock)
    return events.share(times + events.start_us if clock == "start" else times) >= _MOST


def _in_words(guess: _Said, changes: list[bool]) -> tuple[str, str]:
    said = (
        (f"the events are in {guess.time_unit}", f"dataset.preprocessing.time_unit={guess.time_unit}"),
        (f"the boxes are in {guess.label_unit}", f"dataset.preprocessing.label_time_unit={guess.label_unit}"),
        (
            "the boxes count from the first event" if guess.label_clock == "start" else "the boxes have its stamps",
            f"dataset.preprocessing.label_clock={guess.label_clock}",
        ),
    )
    causes, keys = zip(*(words for words, changed in zip(said, changes, strict=True) if changed), strict=True)
    return " and ".join(causes), " ".join(keys)


def _span(first_us: int, last_us: int) -> str:
    return f"{_readable(first_us)} to {_readable(last_us)}"


def _readable(t_us: int) -> str:
    t_us = int(t_us)
    if abs(t_us) < 1_000:
        return f"{t_us} us"
    if abs(t_us) < 1_000_000:
        return f"{t_us / 1000:.3f} ms"
    if abs(t_us) < 600_000_000:
        return f"{t_us / 1e6:.3f} s"
    if 946_684_800 <= t_us / 1e6 < 4_102_444_800:  # the years 2000 to 2099
        return f"{datetime.fromtimestamp(t_us / 1e6, UTC):%Y-%m-%d %H:%M:%S} (Unix time)"
    if abs(t_us) < 86_400_000_000:
        return f"{t_us / 1e6:,.3f} s ({t_us / 60e6:.1f} min)"
    return f"{t_us / 1e6:,.0f} s ({t_us / 86.4e9:,.1f} days)"


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
