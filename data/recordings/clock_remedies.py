"""Why events and boxes are not of one clock, in words, with the settings that would make them so."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from config.schema import PreprocessingConfig
from data.recordings.boxes import read_boxes
from data.recordings.clock_fit import MOST, EventSpan, Said, clock_of, contradiction_of
from data.recordings.event_files import takes_time_unit
from data.recordings.formats.common import TICKS_PER_S, TimeUnit
from data.recordings.recording import RUNNING_CLOCK_US, Recording

_UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)
_FAR = 2**61  # so that sums of times fit into 64 bits
_LABEL_GAPS_US = (1_000, 60_000_000)  # between the label times of a camera


def refusal(
    contradiction: str, path: Path, recording: Recording, times: Int64[ndarray, " n"],
    events: EventSpan, said: Said, settings: PreprocessingConfig,
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
    spans = f"boxes at {span_in_words(times[0], times[-1])}, events at {span_in_words(events.first_us, events.last_us)}"
    return f"{path}: its times do not fit the events of {recording.path.name}: {spans}; {contradiction}. {remedy}"


def _remedies(
    path: Path, recording: Recording, events: EventSpan, said: Said, settings: PreprocessingConfig
) -> Iterator[tuple[str, str]]:
    """Likely causes, each with the settings that remove it: the fewest, and of these the most plausible."""
    event_units = _UNITS if settings.time_unit is None and takes_time_unit(recording.path) else (said.time_unit,)
    label_units = _UNITS if settings.label_time_unit is None else (said.label_unit,)
    clocks = (None, "start", "recording") if said.label_clock is None else (said.label_clock,)
    times_in = {unit: np.unique(read_boxes(path, unit)["t"]) for unit in label_units}
    ranked: list[tuple[tuple[int, bool], tuple[str, str]]] = []
    for event_unit, label_unit, clock in product(event_units, label_units, clocks):
        guess = Said(event_unit, label_unit, clock)
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


def _in_unit(events: EventSpan, unit: TimeUnit, other: TimeUnit) -> EventSpan:
    """The span as it is where the file's numbers mean another unit; only formats that define no start leave it open."""
    if unit == other:
        return events
    ends = (t * TICKS_PER_S[unit] // TICKS_PER_S[other] for t in (events.first_us, events.last_us))
    first, last = (min(max(t, -_FAR), _FAR) for t in ends)
    return EventSpan(first, last, first, has_own_start=first > RUNNING_CLOCK_US)


def _fits(times: Int64[ndarray, " n"], events: EventSpan, guess: Said, settings: PreprocessingConfig) -> bool:
    if contradiction_of(times, events, guess, settings):
        return False
    clock = clock_of(times, events, guess.label_clock)
    return events.share(times + events.start_us if clock == "start" else times) >= MOST


def _in_words(guess: Said, changes: list[bool]) -> tuple[str, str]:
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


def span_in_words(first_us: int | np.integer, last_us: int | np.integer) -> str:
    return f"{readable(first_us)} to {readable(last_us)}"


def readable(t_us: int | np.integer) -> str:
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
