"""Events as files have them become clean ones; what is left out or mended is counted by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy import ndarray

from config.errors import UserError
from data.compiled import compiled
from data.recordings.clock import WITNESSES, Clock, SetBackError
from data.recordings.events import Events
from data.recordings.formats.columns import CONVENTIONS
from data.recordings.formats.common import EventFile, RawEvents

OUTSIDE = "events outside the sensor"
BACKWARDS = "events with a time before an earlier one's"
LEAPS = "events with a time that those around them contradict"
DAMAGED_WORDS = "time words that those around them contradict"
_CODED = (0, 1, -1, 255)  # polarities in the order of the bits that `_on_sensor` returns; the next bit is for others
_NONE = RawEvents(*np.empty((4, 0), np.int64))


class Cleaning:
    """One reading of a file from its start.

    Events outside the sensor are left out, and first, so that garbage cannot move the clock; then those with garbage
    times (`data.recordings.clock`). A time that lies a little before an earlier event's becomes equal to it. Polarity
    -1/1 and 0/255 become 0/1; other values raise UserError, as does a clock that is set back for good.
    """

    def __init__(self, file: EventFile, sensor_hw: tuple[int, int]) -> None:
        self.faults: Counter[str] = Counter()
        self.num_events = 0  # read so far
        self._file, self._sensor_hw = file, sensor_hw
        self._clock = Clock(file.ticks_per_s, file.period)
        self._polarities = 0
        self._waiting = Events.empty()  # they need later events as witnesses; their times are still ticks

    def events(self) -> Iterator[Events]:
        """Times are those of the file's own clock, in us."""
        for raw in self._file.pieces():
            if len(events := self._clean(raw)):
                yield events
        if len(events := self._clean(_NONE, is_last=True)):
            yield events

    def _clean(self, raw: RawEvents, *, is_last: bool = False) -> Events:
        events, t = self._with_waiting(raw)
        size = self._keep_on_sensor(raw, events, t)
        count = size if is_last else max(size - WITNESSES, 0)
        kept = np.empty(count, np.int64)
        try:
            num_kept = self._clock.accept(t[:size], count, kept, events.t_us)
        except SetBackError as error:
            raise UserError(f"{self._file.path}: {error}") from error
        self._waiting = Events(*(column[count:size].copy() for column in (events.x, events.y, events.polarity, t)))
        counts = {BACKWARDS: self._clock.backwards, LEAPS: self._clock.leaps, DAMAGED_WORDS: self._file.damaged_words()}
        self.faults.update({reason: count - self.faults[reason] for reason, count in counts.items() if count})
        if num_kept == count:
            return events[:count]
        places = kept[:num_kept]
        return Events(events.x[places], events.y[places], events.polarity[places], events.t_us[:num_kept])

    def _with_waiting(self, raw: RawEvents) -> tuple[Events, ndarray]:
        """Room for the waiting events and those of `raw`, the former copied; times in ticks apart."""
        waiting = len(self._waiting)
        events, t = Events.empty(waiting + len(raw.t)), np.empty(waiting + len(raw.t), np.int64)
        for name in ("x", "y", "polarity"):
            getattr(events, name)[:waiting] = getattr(self._waiting, name)
        t[:waiting] = self._waiting.t_us
        return events, t

    def _keep_on_sensor(self, raw: RawEvents, events: Events, t: ndarray) -> int:
        """Fill `events` and `t` behind those that wait; returns how many there are then."""
        waiting = len(self._waiting)
        to = (events.x, events.y, events.polarity, t)
        size, seen = _on_sensor(raw.x, raw.y, raw.p, raw.t, *to, waiting, *self._sensor_hw)
        self.num_events += len(raw.t)
        if outside := waiting + len(raw.t) - int(size):
            self.faults[OUTSIDE] += outside
        self._polarities |= int(seen)
        values = {value for bit, value in enumerate(_CODED) if self._polarities >> bit & 1}
        if self._polarities >> len(_CODED) or not any(values <= convention for convention in CONVENTIONS):
            values |= set(np.unique(raw.p).tolist())
            listed = ", ".join(map(str, sorted(values)[:8])) + (", ..." if len(values) > 8 else "")
            raise UserError(
                f"{self._file.path} has polarities {listed}. They are to be 0 and 1, -1 and 1, or 0 and 255, with the "
                "greater value for brighter: convert them to one of these"
            )
        return int(size)


@compiled
def _on_sensor(
    x: ndarray, y: ndarray, p: ndarray, t: ndarray,
    to_x: ndarray, to_y: ndarray, to_polarity: ndarray, to_t: ndarray, size: int, height: int, width: int,
) -> tuple[int, int]:  # fmt: skip
    """Append the events on the sensor at `size`; returns the new size, and a bit for every polarity that occurred."""
    seen = 0
    for i in range(t.size):
        column, row, polarity = np.int64(x[i]), np.int64(y[i]), np.int64(p[i])
        if column < 0 or column >= width or row < 0 or row >= height:
            continue
        if polarity == 0 or polarity == 1:
            seen |= 1 << polarity
        elif polarity == -1:
            seen |= 4
        else:
            seen |= 8 if polarity == 255 else 16
        to_x[size], to_y[size], to_polarity[size], to_t[size] = column, row, polarity > 0, t[i]
        size += 1
    return size, seen
