"""A recording that is still being written: read in a thread of its own, so that the newest event is always known."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from config.errors import UserError
from data.recordings.events import Events
from data.recordings.formats.common import Reading
from data.recordings.growth import GROWING_SUFFIXES, Growth
from data.recordings.recording import Recording

_MOST_WAITING = 2**22  # events that are read ahead; behind them the file itself waits


class LiveRecording(Recording):
    """As `Recording`, of a file that `reading.growth` follows. Opening it waits for its first events.

    Told while it is read:
    - `newest_us`: the latest event that was read, counted from `clock_start_us`.
    - `is_held_up`: as many events wait as may, so what follows in the file is not known.
    """

    def __init__(self, path: Path, sensor_hw: tuple[int, int], reading: Reading) -> None:
        assert reading.growth is not None
        wait_until_readable(path, reading.growth)
        super().__init__(path, sensor_hw, reading)
        self._queue = _Queue()
        self._arrivals: deque[tuple[int, float]] = deque()

    @property
    def newest_us(self) -> int:
        return self.end_us

    @property
    def is_held_up(self) -> bool:
        return self._queue.is_full

    def pieces(self) -> Iterator[Events]:
        self._queue = _Queue()
        self._arrivals.clear()
        thread = threading.Thread(target=self._read, args=(super().pieces(), self._queue), daemon=True)
        thread.start()
        try:
            yield from self._queue
        finally:
            self._queue.close()

    def arrival_s(self, t_us: int) -> float | None:
        """When (by time.perf_counter) the first event after `t_us` had been read; None at the recording's end.

        Earlier arrivals are forgotten: ask in order of time.
        """
        while self._arrivals and self._arrivals[0][0] <= t_us:
            self._arrivals.popleft()
        return self._arrivals[0][1] if self._arrivals else None

    def _read(self, pieces: Iterator[Events], queue: _Queue) -> None:
        try:
            for events in pieces:
                self._arrivals.append((int(events.t_us[-1]), time.perf_counter()))
                if not queue.put(events):
                    return
            queue.end()
        except BaseException as error:  # whatever it is, it is the reader's of the queue
            queue.end(error)


def wait_until_readable(path: Path, growth: Growth) -> None:
    """Raises UserError for a format that cannot be read before it is whole."""
    if path.is_file() and path.suffix.lower() not in GROWING_SUFFIXES:
        raise UserError(
            f"{path}: follow=true reads {' and '.join(GROWING_SUFFIXES)}, which can be read while they are written; "
            f"{path.suffix or 'this'} is read when it is whole, without follow"
        )
    if path.is_file():
        growth.wait_for_header(path)


class _Queue:
    """Pieces of events on their way from one thread to another; those that wait are handed over as one."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._pieces: list[Events] = []
        self._waiting = 0
        self._is_over = self._is_closed = False
        self._error: BaseException | None = None

    @property
    def is_full(self) -> bool:
        return self._waiting > _MOST_WAITING

    def put(self, events: Events) -> bool:
        """False where nobody wants more."""
        with self._change:
            self._pieces.append(events)
            self._waiting += len(events)
            self._change.notify_all()
            self._change.wait_for(lambda: not self.is_full or self._is_closed)
            return not self._is_closed

    def end(self, error: BaseException | None = None) -> None:
        with self._change:
            self._is_over, self._error = True, error
            self._change.notify_all()

    def close(self) -> None:
        with self._change:
            self._is_closed = True
            self._change.notify_all()

    def __iter__(self) -> Iterator[Events]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._pieces or self._is_over)
                pieces, self._pieces, self._waiting = self._pieces, [], 0
                self._change.notify_all()
            if pieces:
                yield Events.joined(pieces)
            elif self._error is not None:
                raise self._error
            else:
                return
