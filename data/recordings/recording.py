"""Raw events of any supported file, window by window and in bounded memory.

`data.recordings.event_files` gives a file's events in pieces, `data.recordings.cleaning` cleans them and counts faults;
here they are cut into windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from config.errors import UserError
from data.recordings.cleaning import Cleaning
from data.recordings.clock import Clock, SetBackError
from data.recordings.event_files import open_event_file
from data.recordings.events import Events
from data.recordings.formats.common import Reading, faults_of

_FIRST_EVENTS = 4096
TAIL_US = 1_000_000  # so long after its last event a recording may still be running
LONGEST_SILENCE_US = 3_600_000_000  # that is shown or looked at, window by window
RUNNING_CLOCK_US = 3_600_000_000  # no recording is silent for its first hour
_BEGINNING = -(2**62)


class Recording:
    """One file of events. Opening it reads its first events only.

    Told at once:
    - `sensor_hw`: as given. `sensor_hw_of_file`: what the file says, or None. Where they differ, opening raises
      UserError.
    - `first_t_us`: its first event on the file's own clock, None without events.
    - `last_t_us`: its last event on the same clock. Cheap where the format has random access and the clock is sound;
      else one pass over the file.
    - `clock_start_us`: the time on the file's own clock that those of `pieces()` and `windows()` count from. 0 where
      the file counts from its start.
    - `notes`: what the file itself told of its layout or unit of time, to be shown to the user.

    Told while it is read, of the latest call of `pieces()` or `windows()`:
    - `num_events`: all events read so far. `end_us`: the last kept one, counted from `clock_start_us`.
    - `faults`: counts by reason (`data.recordings.cleaning`): BACKWARDS were mended, all others left out.
    """

    def __init__(self, path: Path, sensor_hw: tuple[int, int], reading: Reading | None = None) -> None:
        self.path, self._file = path, open_event_file(path, reading or Reading())
        self.sensor_hw, self.sensor_hw_of_file, self.notes = sensor_hw, self._file.sensor_hw, self._file.notes
        if self.sensor_hw_of_file not in (None, sensor_hw):
            raise UserError(
                f"{path} is from a sensor of {self.sensor_hw_of_file} pixels (height, width), but "
                f"dataset.resolution_hw is {sensor_hw}. Choose the data set that the recording belongs to"
            )
        beginning = Cleaning(self._file, sensor_hw, _FIRST_EVENTS).events()
        self.first_t_us = next((int(piece.t_us[0]) for piece in beginning), None)
        self._cleaning = Cleaning(self._file, sensor_hw)
        self.clock_start_us = self._clock_start_us()
        self.end_us = _BEGINNING

    @property
    def counts_from_defined_start(self) -> bool:
        """Whether the format itself defines the start that boxes count from."""
        return self._file.clock_start_us is not None

    @property
    def has_own_start(self) -> bool:
        """Whether its format, or a running clock, tells the start; else boxes and events count from 0."""
        return self.clock_start_us > 0 or self.counts_from_defined_start

    def _clock_start_us(self) -> int:
        """0 for a recording that counts from its start, even where it is silent at first."""
        if self._file.clock_start_us is not None:
            return self._file.clock_start_us
        first_us = self.first_t_us or 0
        return first_us if self._file.has_running_clock or first_us > RUNNING_CLOCK_US else 0

    @cached_property
    def last_t_us(self) -> int | None:
        if self._file.outline is not None and self.first_t_us is not None:
            with faults_of(self._file.path):
                t = self._file.outline()
            clock = Clock(self._file.ticks_per_s, self._file.period)
            with suppress(SetBackError):
                clock.accept(t, len(t))
                if clock.leaps == 0 and clock.last_us >= self.first_t_us:
                    return clock.last_us
        last = None
        for piece in Cleaning(self._file, self.sensor_hw).events():
            last = int(piece.t_us[-1])
        return last

    @property
    def num_events(self) -> int:
        return self._cleaning.num_events

    @property
    def faults(self) -> Counter[str]:
        return self._cleaning.faults

    def pieces(self) -> Iterator[Events]:
        """All events, cleaned; times count from `clock_start_us`."""
        self._cleaning = Cleaning(self._file, self.sensor_hw)
        for events in self._cleaning.events():
            events.t_us[:] -= self.clock_start_us
            self.end_us = int(events.t_us[-1])
            yield events

    def windows(self, bounds_us: Iterable[tuple[int, int]], longest_silence_us: int | None = None) -> Iterator[Events]:
        """The events of every window, both end points included; neither starts nor ends may go back in time.

        Windows without events are empty. Iteration ends early at a window that begins more than a second after the
        recording's last event: nothing was recorded there. Raises UserError at the first of the empty windows that
        would last for longer than `longest_silence_us`.
        """
        pieces, complete = self.pieces(), False
        held: list[Events] = []  # pieces that reach into the window, none of them empty
        for start_us, end_us in bounds_us:
            held = [piece.after(start_us) for piece in held if piece.t_us[-1] >= start_us]
            while not complete and (not held or held[-1].t_us[-1] <= end_us):
                piece = next(pieces, None)
                complete = piece is None
                if piece is not None and piece.t_us[-1] >= start_us:
                    held.append(piece.after(start_us))
            if complete and self.end_us + TAIL_US < start_us:
                return
            if longest_silence_us is not None and held and held[0].t_us[0] - end_us > longest_silence_us:
                raise UserError(
                    f"{self.path} has no events from {end_us / 1e6:,.3f} s to {int(held[0].t_us[0]) / 1e6:,.3f} s "
                    "after its start of times. Take the part before, or cut it there"
                )
            yield Events.joined([piece.until(end_us) for piece in held])
