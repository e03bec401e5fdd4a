"""Windows of the trained length over a recording, at any rate, each counted into a frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from config.errors import UserError
from data.recordings.event_files import has_streams, open_event_file, takes_time_unit
from data.recordings.events import Events
from data.recordings.formats.common import Reading, TimeUnit
from data.recordings.growth import Growth
from data.recordings.label_clock import start_of
from data.recordings.live import LiveRecording, wait_until_readable
from data.recordings.recording import LONGEST_SILENCE_US, Recording
from data.recordings.representation import count_window
from modules.deployment.description import Description

MOST_HZ = 1000
LateRule = Literal["newest", "none"]


@dataclass(frozen=True)
class Window:
    """The events of one window."""

    end_us: int  # counted from where boxes of this recording count from
    events: Events
    skipped: int  # windows left out before this one, because they were late
    arrived_s: float | None  # when (time.perf_counter) the first event behind it had been read, of a growing file


@dataclass(frozen=True)
class Late:
    """What becomes of windows that come late.

    `newest`: where the oldest window that waits ends `after_ms` or more before the newest event in the file, it and all
    others are left out but the newest whole one. `none`: every window is worked on.
    """

    rule: LateRule = "newest"
    after_ms: float = 200.0


def open_recording(path: Path, description: Description, reading: Reading, growth: Growth | None = None) -> Recording:
    """Raises UserError where it cannot be read, holds no events, or is of another sensor than the network's."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: give a recording, a file of events")
    if growth is not None:
        reading = replace(reading, growth=growth)
        wait_until_readable(path, growth)
    told = open_event_file(path, reading).sensor_hw
    if told is not None and told != description.sensor_hw:
        trained = "{} x {}".format(*description.sensor_hw)
        raise UserError(
            f"{path} is from a sensor of {told[0]} x {told[1]} pixels (height x width), and the network was trained "
            f"for {trained}: sizes and speeds are others than it knows. Take a checkpoint for that sensor, or train one"
        )
    recording = (Recording if growth is None else LiveRecording)(path, description.sensor_hw, reading)
    if recording.first_t_us is None:
        sensor = "{} x {}".format(*description.sensor_hw)
        raise UserError(f"{path} holds no events on a sensor of {sensor} pixels (height x width)")
    return recording


def reading_for(path: Path, description: Description, time_unit: TimeUnit | None, stream: int | None) -> Reading:
    """As the command says, else as the training data's were read, as far as the format leaves it open.

    Raises UserError for a stream of a format that has no streams.
    """
    if stream is not None and not has_streams(path):
        raise UserError(f"{path} holds no streams to choose from: leave stream={stream} out")
    unit = time_unit or (description.time_unit if takes_time_unit(path) else None)
    return Reading(unit, description.stream if stream is None else stream)


def windows(
    recording: Recording, description: Description, rate_hz: float, late: Late | None = None
) -> Iterator[Window]:
    """Windows that end every 1 / `rate_hz` s, up to the one that holds the recording's last event.

    The first begins at a multiple of the window's length, as frames of a preprocessed recording do before its first
    label. Above 1 / window_ms windows overlap.

    Args:
        late: for a growing recording.
    """
    assert recording.first_t_us is not None
    window_us = description.window_ms * 1000
    start_us = recording.first_t_us - recording.clock_start_us
    origin_us = start_of(recording, description.label_clock)
    first_us = origin_us + (start_us - origin_us) // window_us * window_us + window_us
    asked: deque[tuple[int, int]] = deque()  # end and number of windows left out before it

    def bounds() -> Iterator[tuple[int, int]]:
        following = 0
        while True:
            number = following
            if late is not None and isinstance(recording, LiveRecording):
                number = _next_in_time(following, recording, late, first_us, rate_hz)
            end_us = first_us + round(number * 1e6 / rate_hz)
            asked.append((end_us, number - following))
            yield end_us - window_us, end_us
            following = number + 1

    for events in recording.windows(bounds(), LONGEST_SILENCE_US):
        end_us, skipped = asked.popleft()
        if len(events) == 0 and recording.end_us < end_us - window_us:
            return
        arrived_s = recording.arrival_s(end_us) if isinstance(recording, LiveRecording) else None
        yield Window(end_us - origin_us, events, skipped, arrived_s)
        if recording.end_us <= end_us:
            return


def _next_in_time(following: int, recording: LiveRecording, late: Late, first_us: int, rate_hz: float) -> int:
    """The number of the window to go on with."""
    behind_us = recording.newest_us - (first_us + round(following * 1e6 / rate_hz))
    if late.rule == "none" or (behind_us < late.after_ms * 1000 and not recording.is_held_up):
        return following
    newest = following + int((behind_us - 1) * rate_hz / 1e6)
    return max(newest, following)


class FrameCounter:
    """Counts windows into one frame's memory."""

    def __init__(self, description: Description) -> None:
        self._cutoff, self._sensor_hw = description.count_cutoff, description.sensor_hw
        self.frame: UInt8[ndarray, "c h w"] = np.zeros((description.channels, *description.frame_hw), np.uint8)

    def __call__(self, events: Events) -> UInt8[ndarray, "c h w"]:
        """The frame of these events, to be used before the next call."""
        self.frame.fill(0)
        count_window(events, self._cutoff, self._sensor_hw, self.frame)
        return self.frame
