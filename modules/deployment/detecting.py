"""From a recording's windows to files of boxes, whatever runs the network."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from config.errors import UserError
from data.recordings.cleaning import OUTSIDE
from data.recordings.events import Events
from data.recordings.growth import Growth
from data.recordings.live import LiveRecording
from data.recordings.recording import Recording
from modules.deployment.network import Network, warm_up
from modules.deployment.outs import Boxes, Writer, end_writers, open_writers
from modules.deployment.timing import Durations, Latency
from modules.deployment.windows import FrameCounter, Late, Window, windows

_SECONDS_BETWEEN_LINES = 30


class Stop:
    """While it is entered, SIGINT and SIGTERM ask for an end instead of making one; asking twice changes nothing."""

    def __init__(self, growth: Growth | None = None) -> None:
        self.signum: int | None = None
        self._growth = growth
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _ask(self, signum: int, _: FrameType | None) -> None:
        self.signum = signum
        if self._growth is not None:
            self._growth.stop()


@dataclass(frozen=True)
class Job:
    recording: Recording
    network: Network
    outs: tuple[Path, ...]
    rate_hz: float = 20.0
    late: Late | None = None  # of a recording that grows

    @property
    def is_live(self) -> bool:
        return isinstance(self.recording, LiveRecording)


@dataclass
class Tally:
    """What was done so far. `behind` is of a growing recording, in seconds: see `_Clock`."""

    num_windows: int = 0
    num_boxes: int = 0
    num_left_out: int = 0
    last_us: int = 0
    behind_s: float = 0.0
    latency: Latency = field(default_factory=Latency)
    waited: Durations = field(default_factory=Durations)  # from the arrival of the first event behind a window
    behind: Durations = field(default_factory=Durations)
    seconds: float = 0.0


def detect(job: Job, stop: Stop) -> Tally:
    """Write all boxes; what is found when the end is asked for stands in the files, whole.

    Raises UserError for a recording that is damaged on the way: then the files of a recording that was followed are
    kept, others are not.
    """
    writers = open_writers(job.outs, job.network.description, job.rate_hz, job.is_live)
    tally = Tally()
    try:
        _work(job, stop, writers, tally)
        _check_faults(job.recording)
    except BaseException:
        with suppress(UserError):  # the first fault is the one to be told
            end_writers(writers, whole=job.is_live)
        raise
    end_writers(writers, whole=True)
    return tally


def _work(job: Job, stop: Stop, writers: list[Writer], tally: Tally) -> None:
    description = job.network.description
    count, clock = FrameCounter(description), _Clock()
    count(Events(*(np.zeros(1, dtype) for dtype in (np.uint16, np.uint16, np.uint8, np.int64))))
    warm_up(job.network)
    started = time.perf_counter()
    next_line = started + _SECONDS_BETWEEN_LINES
    for window in windows(job.recording, description, job.rate_hz, job.late):
        if stop.signum is not None:  # and of a growing file, this window may not be whole
            return
        begun = time.perf_counter()
        frame = count(window.events)
        counted = time.perf_counter()
        found, seconds = job.network(frame)
        tally.latency.add((counted - begun, *seconds))
        boxes = Boxes.of(found, window.end_us, window.skipped, frame, description)
        for writer in writers:
            writer.add(boxes)
        tally.num_windows += 1
        tally.num_boxes += len(found)
        tally.num_left_out += window.skipped
        tally.last_us = window.end_us
        now = time.perf_counter()
        tally.seconds = now - started
        if job.is_live:
            clock.see(window, now, tally)
        if now > next_line:
            next_line = now + _SECONDS_BETWEEN_LINES
            behind = f", {tally.behind_s:.2f} s behind real time" if job.is_live else ""
            print(
                f"{window.end_us / 1e6:,.1f} s of recording: {tally.num_windows:,} windows, {tally.num_boxes:,} boxes"
                f"{behind}",
                file=sys.stderr,
                flush=True,
            )


class _Clock:
    """How far boxes are behind real time: against the window whose end was known soonest after it was over."""

    def __init__(self) -> None:
        self._least = float("inf")  # between the clocks of this machine and of the recording, in seconds

    def see(self, window: Window, now: float, tally: Tally) -> None:
        end_s = window.end_us / 1e6
        if window.arrived_s is not None:
            self._least = min(self._least, window.arrived_s - end_s)
            tally.waited.add(now - window.arrived_s)
        if self._least < float("inf"):
            tally.behind_s = now - end_s - self._least
            tally.behind.add(tally.behind_s)


def _check_faults(recording: Recording) -> None:
    outside = recording.faults[OUTSIDE]
    if outside > recording.num_events / 2:
        height, width = recording.sensor_hw
        raise UserError(
            f"{recording.path} has {outside:,} events outside the sensor of {height} x {width} pixels (height x width) "
            f"that the network was trained for, among {recording.num_events:,}: it is of another sensor"
        )
