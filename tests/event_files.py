"""Writers of event files, word by word from the formats' definitions, and what reading gives."""

from collections.abc import Iterable
from pathlib import Path

import eventcv
import h5py
import numpy as np

from data.recordings.formats.common import Reading
from data.recordings.recording import Recording

EventRows = np.ndarray  # [n, 4] columns x, y, p, t in us
SENSOR_HW = (480, 640)


def make_events(num_events: int = 4000, duration_us: int = 40_000_000, start_us: int = 0) -> EventRows:
    """Over 40 s by default: EVT3's 24-bit clock goes round every 16.8 s. Some events share time and row."""
    rng = np.random.default_rng(0)
    events = np.stack([rng.integers(0, size, num_events) for size in (*SENSOR_HW[::-1], 2, duration_us)], axis=1)
    events[1::2, [1, 3]] = events[::2, [1, 3]]
    events[:, 3] += start_us
    return events[np.lexsort((events[:, 0], events[:, 3]))]


def read_events(
    path: Path, reading: Reading | None = None, sensor_hw: tuple[int, int] = SENSOR_HW
) -> tuple[EventRows, Recording]:
    """Cleaned events with times on the file's own clock, and the recording that has been read."""
    recording = Recording(path, sensor_hw, reading)
    pieces = [np.stack([piece.x, piece.y, piece.polarity, piece.t_us], axis=1) for piece in recording.pieces()]
    rows = np.concatenate([*pieces, np.empty((0, 4), np.int64)]).astype(np.int64)
    return rows + np.array([0, 0, 0, recording.clock_start_us]), recording


def in_order(events: EventRows) -> EventRows:
    """EVT3 gives events of one time in its own order."""
    return events[np.lexsort((events[:, 0], events[:, 1], events[:, 3]))]


def write_hdf5(
    path: Path, events: EventRows, *, t_type: type = np.int64, p_type: type = np.uint8, **scalars: int
) -> None:
    with h5py.File(path, "w") as file:
        for key, column in zip("xypt", events.T, strict=True):
            dtype = {"t": t_type, "p": p_type}.get(key, np.uint16)
            file.create_dataset(f"events/{key}", data=column.astype(dtype), compression="gzip")
        for key, value in scalars.items():
            file[f"events/{key}"] = value


def compound(events: EventRows, dtype: list[tuple[str, str]]) -> np.ndarray:
    rows = np.zeros(len(events), dtype)
    for name, column in zip("xypt", events.T, strict=True):
        rows[name] = column
    return rows


def write_metavision(path: Path, events: EventRows, num_rows: int = 16384) -> None:
    rows = compound(events, [("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
    with h5py.File(path, "w") as file:
        file.create_dataset("CD/events", data=rows, chunks=(min(num_rows, len(rows)),))
        file["CD/indexes"] = np.zeros(3, [("id", "<u8"), ("ts", "<i8")])
        file.attrs["geometry"] = "640x480"


def write_npz(path: Path, events: EventRows) -> None:
    np.savez_compressed(path, **dict(zip("xypt", events.T, strict=True)))


def write_text(path: Path, events: EventRows) -> None:
    path.write_text("".join(f"{t} {x} {y} {p}\n" for x, y, p, t in events.tolist()))


def write_dat(
    path: Path, events: EventRows, header: bytes = b"% Version 2\n% Height 480\n% Width 640\n", event_type: int = 12
) -> None:
    x, y, p, t = events.T
    words = np.stack([t % 2**32, x | y << 14 | p << 28], axis=1).astype("<u4")
    path.write_bytes(b"% Data file containing CD events.\n" + header + bytes([event_type, 8]) + words.tobytes())


def raw_file(header: Iterable[str], words: list[int], word: str) -> bytes:
    return "".join(f"% {line}\n" for line in (*header, "end")).encode() + np.array(words, word).tobytes()


def write_evt2(path: Path, events: EventRows) -> None:
    """A word of 32 bits an event: type 0 or 1 (polarity), 6 bits of time, 11 of x and of y; type 8: time's upper 28."""
    words, high = [], None
    for x, y, p, t in events.tolist():
        if t >> 6 != high:
            high = t >> 6
            words.append(8 << 28 | high & 0xFFFFFFF)
        words.append(p << 28 | (t & 63) << 22 | x << 11 | y)
    path.write_bytes(raw_file(["evt 2.0", "format EVT2;height=480;width=640"], words, "<u4"))


def write_evt21(path: Path, events: EventRows, *, is_legacy: bool = False) -> None:
    """As EVT2 in the upper half of 64 bits, but x is a multiple of 32; below, a bit for each column from there."""
    words, high = [], None
    for x, y, p, t in events.tolist():
        if t >> 6 != high:
            high = t >> 6
            words.append(8 << 60 | (high & 0xFFFFFFF) << 32)
        words.append(p << 60 | (t & 63) << 54 | (x - x % 32) << 43 | y << 32 | 1 << x % 32)
    if is_legacy:
        words = [(word & 0xFFFFFFFF) << 32 | word >> 32 for word in words]
    endianness = ";endianness=legacy" if is_legacy else ""
    path.write_bytes(raw_file(["evt 2.1", f"format EVT21;height=480;width=640{endianness}"], words, "<u8"))


def write_evt3(path: Path, events: EventRows) -> None:
    """Words of 16 bits that change one thing each: 8 time's upper 12 bits, 6 lower 12, 0 row, 2 an event's column and
    polarity, 3 a column to count from, 4 a mask of 12 events.
    """
    words, high = [], None
    for x, y, p, t in events.tolist():
        for new_high in range(t >> 12 if high is None else high + 1, (t >> 12) + 1):  # the clock ticks on in silence
            high = new_high
            words.append(8 << 12 | high & 0xFFF)
        words += [6 << 12 | t & 0xFFF, y]
        words += [2 << 12 | p << 11 | x] if x % 2 else [3 << 12 | p << 11 | x - x % 12, 4 << 12 | 1 << x % 12]
    path.write_bytes(raw_file(["evt 3.0", "format EVT3;height=480;width=640"], words, "<u2"))


def write_aedat4(path: Path, events: EventRows) -> None:
    columns = events[:, [0, 1, 3, 2]].astype(np.uint64)
    eventcv.save(eventcv.from_numpy(columns, sensor_size=SENSOR_HW[::-1], time_unit="us"), str(path))


def write_aedat2(path: Path, events: EventRows, chip: str = "eu.seebetter.ini.chips.davis.Davis640") -> None:
    """Rows count from the bottom; a sample of the picture and an event from outside stand between the events."""
    x, y, p, t = events.T
    address = (SENSOR_HW[0] - 1 - y) << 22 | x << 12 | p << 11
    words = np.stack([address, t], axis=1).astype(">u4")
    others = np.array([[1 << 31 | 5 << 12, t[0]], [1 << 10, t[0]]], ">u4")
    header = f"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# AEChip: {chip}\r\n"
    path.write_bytes(header.encode() + words[:1].tobytes() + others.tobytes() + words[1:].tobytes())
