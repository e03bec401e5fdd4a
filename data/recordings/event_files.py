"""Raw event files as pieces of about a million events: HDF5, Prophesee DAT2 and RAW (EVT2, EVT3), AEDAT4.

RAW is decoded by eventcv, which maps the file into memory and can keep events outside the sensor; AEDAT4 by faery,
which streams. DAT2 is an array of two 32-bit words an event and is read as such: eventcv would load all of it, and
faery gives up at the first event outside the sensor. A file that cannot be read to its end raises UserError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import hdf5plugin  # noqa: F401  recordings may be compressed with any of its filters
import numpy as np
from jaxtyping import Int64, Integer
from numpy import ndarray

from config.errors import UserError

PIECE_EVENTS = 2**20
SUFFIXES = (".h5", ".hdf5", ".dat", ".raw", ".aedat4")
_RUNNING_CLOCK_US = 3_600_000_000  # no recording is silent for its first hour
_DAT_EVENT = np.dtype([("t", "<u4"), ("address", "<u4")])
_RAW_FORMATS = {2: ("<u4", 28, 6), 3: ("<u2", 12, 12)}  # EVT version: word, bit of its type, bits below the high time
_TIME_HIGH = 8  # type of the words that carry the upper bits of the time, in EVT2 and EVT3 alike
_ANY_SENSOR = (4096, 4096)  # width, height: eventcv drops events outside the sensor, which are to be counted here


class RawEvents(NamedTuple):
    """Columns as the file has them: any integer types, polarity 0/1 or -1/1, times in us."""

    x: Integer[ndarray, " n"]
    y: Integer[ndarray, " n"]
    p: Integer[ndarray, " n"]
    t: Integer[ndarray, " n"]


@dataclass(frozen=True)
class EventFile:
    path: Path
    pieces: Callable[[], Iterator[RawEvents]]
    sensor_hw: tuple[int, int] | None = None  # where the file tells it
    # The file's time that boxes count from. Not 0 where stamps are those of a running clock: AEDAT4 has Unix times,
    # HDF5 and DAT rarely (the first event then); RAW has the sensor's (the first high time, as in Prophesee's tools).
    clock_start_us: int = 0


def open_event_file(path: Path) -> EventFile:
    """Raises UserError for a missing file, another format, or one that is damaged as far as that shows at once."""
    readers = {".h5": _open_hdf5, ".hdf5": _open_hdf5, ".dat": _open_dat, ".raw": _open_raw, ".aedat4": _open_aedat4}
    if not path.is_file():
        raise UserError(f"{path} not found")
    if path.suffix.lower() not in readers:
        raise UserError(f"{path}: events are read from {', '.join(SUFFIXES)}, not from {path.suffix}")
    with _faults_of(path):
        return readers[path.suffix.lower()](path)


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """What readers raise over a file's content, as UserError with its path."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{path} is damaged or cut short: {error}. Get the recording anew") from error


def _open_hdf5(path: Path) -> EventFile:
    with h5py.File(path, "r", locking=False) as file:
        events = file.get("events")
        missing = [key for key in "xypt" if not isinstance(events, h5py.Group) or key not in events]
        if missing:
            raise UserError(f"{path} has no events/{missing[0]}: a recording has events/x, y, p and t")
        sizes = {key: len(events[key]) for key in "xypt"}
        if len(set(sizes.values())) > 1:
            raise UserError(f"{path}: events/x, y, p and t differ in length ({sizes}). Get the recording anew")
        for key in "xypt":
            if events[key].dtype.kind not in "iub":
                raise UserError(f"{path}: events/{key} is {events[key].dtype}, not an integer type; times are in us")
        has_size = "height" in events and "width" in events
        sensor_hw = (_scalar(events["height"]), _scalar(events["width"])) if has_size else None
    return EventFile(path, lambda: _hdf5_pieces(path), sensor_hw, _clock_start(_hdf5_pieces(path)))


def _hdf5_pieces(path: Path) -> Iterator[RawEvents]:
    with _faults_of(path), h5py.File(path, "r", locking=False) as file:
        events, wraps = file["events"], _Unwrapped()
        offset = next((_scalar(group["t_offset"]) for group in (events, file) if "t_offset" in group), 0)
        for begin in range(0, len(events["t"]), PIECE_EVENTS):
            x, y, p, t = (events[key][begin : begin + PIECE_EVENTS] for key in "xypt")
            t = wraps(t) if t.dtype == np.uint32 else t.astype(np.int64)
            yield RawEvents(x, y, p.astype(np.int8), t + offset)


def _scalar(dataset: h5py.Dataset) -> int:
    return int(np.asarray(dataset[()]).item())


def _clock_start(pieces: Iterator[RawEvents]) -> int:
    """0 for a recording that counts from its start, even where it is silent at first."""
    first = next(pieces, None)
    return int(first.t[0]) if first is not None and len(first.t) and first.t[0] > _RUNNING_CLOCK_US else 0


def _open_dat(path: Path) -> EventFile:
    header = {}
    with path.open("rb") as file:
        while (start := file.tell(), line := file.readline())[1].startswith(b"%"):
            key, _, value = line[1:].decode("latin-1").strip().partition(" ")
            header[key.lower()] = value.strip()
        file.seek(start)
        _, event_bytes = file.read(2).ljust(2, b"\0")
        first_byte = file.tell()
    if header.get("version", "2") != "2" or event_bytes != _DAT_EVENT.itemsize:
        raise UserError(f"{path} is no DAT of version 2 with events of 8 bytes")
    num_events, rest = divmod(path.stat().st_size - first_byte, _DAT_EVENT.itemsize)
    if rest:
        raise ValueError(f"it ends within event {num_events}")
    sensor_hw = (int(header["height"]), int(header["width"])) if {"height", "width"} <= header.keys() else None
    return EventFile(
        path, lambda: _dat_pieces(path, first_byte), sensor_hw, _clock_start(_dat_pieces(path, first_byte))
    )


def _dat_pieces(path: Path, first_byte: int) -> Iterator[RawEvents]:
    wraps = _Unwrapped()
    with _faults_of(path), path.open("rb") as file:
        file.seek(first_byte)
        while len(piece := np.fromfile(file, _DAT_EVENT, PIECE_EVENTS)):
            address = piece["address"]
            x, y = (address & 0x3FFF).astype(np.uint16), (address >> 14 & 0x3FFF).astype(np.uint16)
            yield RawEvents(x, y, (address >> 28 & 1).astype(np.int8), wraps(piece["t"]))


def _open_raw(path: Path) -> EventFile:
    import eventcv

    reader = eventcv.open(str(path), sensor_size=_ANY_SENSOR)
    version, first_byte = _raw_header(path)
    word, type_bit, low_bits = _RAW_FORMATS[version]
    if (path.stat().st_size - first_byte) % np.dtype(word).itemsize:
        raise ValueError("it ends within a word")
    words = np.fromfile(path, word, PIECE_EVENTS, offset=first_byte)
    high_times = words[words >> type_bit == _TIME_HIGH] & (1 << type_bit) - 1
    clock_start_us = int(high_times[0]) << low_bits if len(high_times) else 0
    return EventFile(path, lambda: _raw_pieces(path, reader), clock_start_us=clock_start_us)


def _raw_header(path: Path) -> tuple[int, int]:
    """EVT version and position of the first word."""
    header = b""
    with path.open("rb") as file:
        while (start := file.tell(), line := file.readline())[1].startswith(b"%"):
            header += line.lower()
            if line.strip() == b"% end":
                start = file.tell()
                break
    for version in _RAW_FORMATS:
        if b"%% evt %d" % version in header or b"format evt%d" % version in header:
            return version, start
    raise ValueError("its header names neither EVT2 nor EVT3")


def _raw_pieces(path: Path, reader: object) -> Iterator[RawEvents]:
    with _faults_of(path):
        for begin in range(0, reader.n_events, PIECE_EVENTS):
            x, y, t, p = reader.slice_count(begin, begin + PIECE_EVENTS).numpy().T
            yield RawEvents(x, y, p.astype(np.int8), t.astype(np.int64))


def _open_aedat4(path: Path) -> EventFile:
    import faery

    stream = faery.events_stream_from_file(path)
    width, height = stream.dimensions()
    first = next((piece for piece in stream if len(piece)), None)
    if first is None:
        raise ValueError("it has no events")
    return EventFile(path, lambda: _aedat4_pieces(path), (height, width), int(first["t"][0]))


def _aedat4_pieces(path: Path) -> Iterator[RawEvents]:
    import faery

    packets: list[ndarray] = []
    with _faults_of(path):
        for packet in faery.events_stream_from_file(path):
            packets.append(packet.copy())
            if sum(map(len, packets)) >= PIECE_EVENTS:
                yield _joined(packets)
                packets = []
        if packets:
            yield _joined(packets)


def _joined(packets: list[ndarray]) -> RawEvents:
    events = np.concatenate(packets)
    return RawEvents(events["x"], events["y"], events["on"].astype(np.int8), events["t"].astype(np.int64))


class _Unwrapped:
    """32-bit times of a recording longer than 71 minutes, made to go on past 2^32 us."""

    def __init__(self) -> None:
        self._last, self._turns = None, 0

    def __call__(self, t: Integer[ndarray, " n"]) -> Int64[ndarray, " n"]:
        t = t.astype(np.int64)
        if len(t) == 0:
            return t
        last = t[0] if self._last is None else self._last
        self._last = t[-1]
        if max(t.max(), last) - min(t.min(), last) <= 2**31:
            return t + (self._turns << 32)
        step = np.diff(t, prepend=last)
        turns = self._turns + np.cumsum((step < -(2**31)).astype(np.int64) - (step > 2**31))
        self._turns = int(turns[-1])
        return t + (turns << 32)
