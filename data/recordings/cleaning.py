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
_BLOCK = 2**15  # events cleaned together: their times stay in the cache
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
            most_events = common.MOST_EVENTS_PER_BYTE * self._file.path.stat().st_size  # it may be growing
            if self.num_events > most_events:
                told = f"claims more than {most_events:,} events, which no file of its size holds"
                raise UserError(f"{self._file.path} {told}: it is damaged. Get the recording anew")
            if len(events := self._clean(raw)):
                yield events
        if len(events := self._clean(_NONE, is_last=True)):
            yield events

    def _clean(self, raw: RawEvents, *, is_last: bool = False) -> Events:
        events = Events.empty(len(self._waiting) + len(raw.t))
        size, done = len(self._waiting), 0
        for column, source in zip(_columns(events), _columns(self._waiting), strict=True):
            column[:size] = source
        dropped = []
        for begin in range(0, max(len(raw.t), 1), _BLOCK):
            size = self._copy_on_sensor(RawEvents(*(column[begin : begin + _BLOCK] for column in raw)), events, size)
            count = size if is_last else max(size - WITNESSES, done)
            try:
                dropped.append(done + self._clock.accept(events.t_us[done:size], count - done))
            except SetBackError as error:
                raise UserError(f"{self._file.path}: {error}") from error
            done = count
        self._waiting = events[done:size]
        self._count_faults(len(events) - size)
        places = np.concatenate(dropped)
        columns = (column[:done] for column in _columns(events))
        return Events(*(np.delete(column, places) if len(places) else column for column in columns))

    def _copy_on_sensor(self, raw: RawEvents, events: Events, size: int) -> int:
        """Append those of `raw` that are on the sensor at `size`; returns the new size."""
        before = size
        size, total, others = map(int, _copy_on_sensor(*raw, *_columns(events), size, *self._sensor_hw))
        if others:
            self._polarities |= set(_polarities_on_sensor(raw.x, raw.y, raw.p, *self._sensor_hw).tolist())
        else:
            self._polarities |= ({1} if total else set()) | ({0} if total < size - before else set())
        if not any(self._polarities <= convention for convention in CONVENTIONS):
            listed = ", ".join(map(str, sorted(self._polarities)[:8])) + (", ..." if len(self._polarities) > 8 else "")
            raise UserError(
                f"{self._file.path} has polarities {listed}. They are to be 0 and 1, -1 and 1, or 0 and 255, with the "
                "greater value for brighter: convert them to one of these"
            )
        self.num_events += len(raw.t)
        return size

    def _count_faults(self, num_outside: int) -> None:
        counts = {
            OUTSIDE: self.faults[OUTSIDE] + num_outside,
            BACKWARDS: self._clock.backwards,
            LEAPS: self._clock.leaps,
            DAMAGED_WORDS: self._file.damaged_words(),
        }
        self.faults.update({reason: count - self.faults[reason] for reason, count in counts.items() if count})


def _columns(events: Events) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    return events.x, events.y, events.polarity, events.t_us


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
    return size, int(total), int(others)
