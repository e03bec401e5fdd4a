"""What all readers of event files share: the columns that they give, and the words for a file that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int64, Integer, Real
from numpy import ndarray

from config.errors import UserError
from data.recordings.growth import Growth

PIECE_EVENTS = 2**20
MOST_EVENTS_PER_BYTE = 256  # of a file: no compression of real events comes near, and a claim of more is none
MOST_ROW_BYTES = 2**10  # of one event: a piece of them fits into memory
MOST_HEADER_BYTES = 2**20
TimeUnit = Literal["s", "ms", "us", "ns"]
TICKS_PER_S: dict[str, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
NO_TIME = -(2**62)  # stands for a time that is no number: no clock follows it, so it is left out and counted
NOWHERE = -1  # stands for a coordinate that is no number, or far beyond any sensor


class RawEvents(NamedTuple):
    """Columns as the file has them: any integer types, polarity not yet checked, times in the file's ticks."""

    x: Integer[ndarray, " n"]
    y: Integer[ndarray, " n"]
    p: Integer[ndarray, " n"]
    t: Int64[ndarray, " n"]


@dataclass(frozen=True)
class Reading:
    """What a user says of recordings that their files leave open."""

    time_unit: TimeUnit | None = None  # of HDF5, npz and text; None: what the file says, else us
    stream: int | None = None  # of an AEDAT4 file with several event streams
    growth: Growth | None = None  # of RAW and DAT: another program is still writing it


@dataclass(frozen=True)
class EventFile:
    """One opened file; `pieces` reads it from its start, as often as it is called."""

    path: Path
    pieces: Callable[[int], Iterator[RawEvents]]  # by the number of events in one, which some formats only come near to
    sensor_hw: tuple[int, int] | None = None  # where the file tells it
    ticks_per_s: int = 10**6
    period: int | None = None  # ticks after which the file's counter starts again, where its type or format says so
    # The file's time that boxes count from, where the format defines it (RAW: the sensor's first high time, as in
    # Prophesee's tools). None: they count from 0, or from the first event where stamps are those of a running clock
    clock_start_us: int | None = None
    has_running_clock: bool = False  # by the format's definition: AEDAT4 has Unix times
    # Times of some events in order, the last few hundred included: tells how long a recording is without reading it
    outline: Callable[[], Int64[ndarray, " n"]] | None = None
    notes: tuple[str, ...] = ()  # what the file itself told of its layout or unit, for the user to read
    damaged_words: Callable[[], int] = lambda: 0  # RAW: time words left out by the latest reading


@contextmanager
def faults_of(path: Path) -> Generator[None]:
    """What readers raise over a file's content, as UserError with its path."""
    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{path} claims more than fits into memory: it is damaged. Get the recording anew") from error
    except Exception as error:  # readers of foreign formats raise anything over damaged bytes
        raise UserError(f"{path} is damaged or cut short: {error}. Get the recording anew") from error


def file_outline(
    times: Callable[[int, int, int], ndarray], num_events: int, stride: int | None = 2**16
) -> Real[ndarray, " n"]:
    """Outline of a file with random access: the first and the last times, and every `stride`-th between them.

    `times(begin, end, step)` are the file's.
    """
    tail = max(num_events - 256, 0)
    head = min(256, tail)
    between = [times(head, tail, stride)] if stride else []
    return np.concatenate([times(0, head, 1), *between, times(tail, num_events, 1)])
