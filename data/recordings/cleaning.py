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
from data.recordings.formats import common
from data.recordings.formats.columns import CONVENTIONS
from data.recordings.formats.common import EventFile, RawEvents

OUTSIDE = "events outside the sensor"
BACKWARDS = "events with a time before an earlier one's"
LEAPS = "events with a time that those around them contradict"
DAMAGED_WORDS = "time words that those around them contradict"
_NONE = RawEvents(*np.empty((4, 0), np.int64))


class Cleaning:
    """One reading of a file from its start.

    Events outside the sensor are left out, and first, so that garbage cannot move the clock; then those with garbage
    times (`data.recordings.clock`). A time that lies a little before an earlier event's becomes equal to it. Polarity
    -1/1 and 0/255 become 0/1; other values raise UserError, as does a clock that is set back for good.
    """

    def __init__(self, file: EventFile, sensor_hw: tuple[int, int], piece_events: int | None = None) -> None:
        self.faults: Counter[str] = Counter()
        self.num_events = 0  # read so far
        self._file, self._sensor_hw = file, sensor_hw
        self._piece_events = piece_events or common.PIECE_EVENTS
        self._clock = Clock(file.ticks_per_s, file.period)
        self._polarities: set[int] = set()
        self._waiting = Events.empty()  # they need later events as witnesses; their times are still ticks

    def events(self) -> Iterator[Events]:
        """Times are those of the file's own clock, in us."""
        for raw in self._file.pieces(self._piece_events):
            if len(events := self._clean(raw)):
                yield events
        if len(events := self._clean(_NONE, is_last=True)):
            yield events

    def _clean(self, raw: RawEvents, *, is_last: bool = False) -> Events:
        events = self._on_sensor(raw)
        count = len(events) if is_last else max(len(events) - WITNESSES, 0)
        try:
            t_us, dropped = self._clock.accept(events.t_us, count)
        except SetBackError as error:
            raise UserError(f"{self._file.path}: {error}") from error
        self._waiting = events[count:]
        counts = {BACKWARDS: self._clock.backwards, LEAPS: self._clock.leaps, DAMAGED_WORDS: self._file.damaged_words()}
        self.faults.update({reason: count - self.faults[reason] for reason, count in counts.items() if count})
        columns = [column[:count] for column in (events.x, events.y, events.polarity)]
        return Events(*(np.delete(column, dropped) if len(dropped) else column for column in columns), t_us)

    def _on_sensor(self, raw: RawEvents) -> Events:
        """Those that waited and those of `raw` that are on the sensor, times in ticks."""
        waiting = len(self._waiting)
        events = Events.empty(waiting + len(raw.t))
        to = (events.x, events.y, events.polarity, events.t_us)
        columns = (self._waiting.x, self._waiting.y, self._waiting.polarity, self._waiting.t_us)
        for column, source in zip(to, columns, strict=True):
            column[:waiting] = source
        size, num_brighter, others = map(int, _copy_on_sensor(*raw, *to, waiting, *self._sensor_hw))
        self.num_events += len(raw.t)
        if size < len(events):
            self.faults[OUTSIDE] += len(events) - size
        if others:
            self._polarities |= set(_polarities_on_sensor(raw.x, raw.y, raw.p, *self._sensor_hw).tolist())
        else:
            self._polarities |= {1} if num_brighter else set()
            self._polarities |= {0} if num_brighter < size - waiting else set()
        if not any(self._polarities <= convention for convention in CONVENTIONS):
            listed = ", ".join(map(str, sorted(self._polarities)[:8])) + (", ..." if len(self._polarities) > 8 else "")
            raise UserError(
                f"{self._file.path} has polarities {listed}. They are to be 0 and 1, -1 and 1, or 0 and 255, with the "
                "greater value for brighter: convert them to one of these"
            )
        return events[:size]


def _polarities_on_sensor(x: ndarray, y: ndarray, p: ndarray, height: int, width: int) -> ndarray:
    return np.unique(p[(x >= 0) & (x < width) & (y >= 0) & (y < height)])


@compiled
def _copy_on_sensor(
    x: ndarray, y: ndarray, p: ndarray, t: ndarray,
    to_x: ndarray, to_y: ndarray, to_polarity: ndarray, to_t: ndarray, size: int, height: int, width: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Append the events on the sensor at `size`.

    Returns the new size, the sum of the polarities, and something other than 0 where they are not all 0 or 1.
    """
    total, others = np.int64(0), np.int64(0)
    for i in range(t.size):
        column, row, polarity = np.int64(x[i]), np.int64(y[i]), np.int64(p[i])
        if column < 0 or column >= width or row < 0 or row >= height:
            continue
        total += polarity
        others |= polarity >> 1
        to_x[size], to_y[size], to_polarity[size], to_t[size] = column, row, polarity > 0, t[i]
        size += 1
    return size, total, others
