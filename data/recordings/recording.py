"""Raw events of any supported file, window by window and in bounded memory.

`data.recordings.event_files` gives a file's events in pieces; here they are cleaned, with faults counted, and cut into
windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8, UInt16
from numpy import ndarray

from config.errors import UserError
from data.compiled import compiled
from data.recordings.event_files import open_event_file

OUTSIDE = "events outside the sensor"
BACKWARDS = "events with a time before an earlier one's"
TAIL_US = 1_000_000  # so long after its last event a recording may still be running
_BEGINNING = -(2**62)


@dataclass(frozen=True)
class Events:
    """Events in order of time, all of them on the sensor."""

    x: UInt16[ndarray, " n"]
    y: UInt16[ndarray, " n"]
    polarity: UInt8[ndarray, " n"]  # 0: darker, 1: brighter
    t_us: Int64[ndarray, " n"]

    def __len__(self) -> int:
        return len(self.t_us)

    def __getitem__(self, part: slice) -> Events:
        return Events(self.x[part], self.y[part], self.polarity[part], self.t_us[part])

    @staticmethod
    def empty(size: int = 0) -> Events:
        return Events(*(np.empty(size, dtype) for dtype in (np.uint16, np.uint16, np.uint8, np.int64)))

    def then(self, following: Events) -> Events:
        """Both, one after the other."""
        pairs = ((getattr(self, name), getattr(following, name)) for name in ("x", "y", "polarity", "t_us"))
        return Events(*(np.concatenate(pair) for pair in pairs))

    def after(self, t_us: int) -> Events:
        """Without the events before `t_us`."""
        return self[np.searchsorted(self.t_us, t_us) :]


class Recording:
    """One file of events. `faults` counts what was mended on the way, `num_events` all events read so far."""

    def __init__(self, path: Path, sensor_hw: tuple[int, int]) -> None:
        self._file = open_event_file(path)
        if self._file.sensor_hw not in (None, sensor_hw):
            raise UserError(
                f"{path} is from a sensor of {self._file.sensor_hw} pixels (height, width), but dataset.resolution_hw "
                f"is {sensor_hw}. Choose the data set that the recording belongs to"
            )
        self.sensor_hw = sensor_hw
        self.clock_start_us = self._file.clock_start_us
        self.faults: Counter[str] = Counter()
        self.num_events = 0
        self.end_us = _BEGINNING  # time of the last event read so far

    def pieces(self) -> Iterator[Events]:
        """All events, cleaned; times count from the file's `clock_start_us`.

        Events outside the sensor are left out, and first, so that garbage cannot move the clock; a time that lies
        before an earlier event's becomes equal to it; polarity -1/1 becomes 0/1.
        """
        for raw in self._file.pieces():
            events = Events.empty(len(raw.t))
            columns = (raw.x, raw.y, raw.p, raw.t, events.x, events.y, events.polarity, events.t_us)
            kept, backwards, self.end_us = _clean(*columns, *self.sensor_hw, self.clock_start_us, self.end_us)
            self.num_events += len(raw.t)
            self.faults.update({OUTSIDE: len(raw.t) - kept, BACKWARDS: backwards})
            yield events[:kept]

    def windows(self, bounds_us: Iterable[tuple[int, int]]) -> Iterator[Events]:
        """The events of every window, both end points included; neither starts nor ends may go back in time.

        Windows without events are empty. Iteration ends early at a window that begins more than a second after the
        recording's last event: nothing was recorded there.
        """
        pieces = self.pieces()
        held, complete = Events.empty(), False
        for start_us, end_us in bounds_us:
            held = held.after(start_us)
            while not complete and (len(held) == 0 or held.t_us[-1] <= end_us):
                piece = next(pieces, None)
                complete = piece is None
                held = held if complete else held.then(piece.after(start_us))
            if complete and self.end_us + TAIL_US < start_us:
                return
            yield held[: np.searchsorted(held.t_us, end_us, side="right")]


@compiled
def _clean(
    x: ndarray, y: ndarray, p: ndarray, t: ndarray,
    to_x: ndarray, to_y: ndarray, to_polarity: ndarray, to_t_us: ndarray,
    height: int, width: int, clock_start_us: int, last_us: int,
) -> tuple[int, int, int]:  # fmt: skip
    kept, backwards = 0, 0
    for i in range(t.size):
        column, row = np.int64(x[i]), np.int64(y[i])
        if column < 0 or column >= width or row < 0 or row >= height:
            continue
        t_us = np.int64(t[i]) - clock_start_us
        backwards += t_us < last_us
        last_us = max(t_us, last_us)
        to_x[kept], to_y[kept], to_polarity[kept], to_t_us[kept] = column, row, p[i] > 0, last_us
        kept += 1
    return kept, backwards, last_us
