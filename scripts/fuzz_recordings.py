"""Small recordings for `scripts/fuzz.py`, one of each format, and how they are read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy import ndarray

from data.recordings.recording import Recording

_SENSOR_HW = (48, 64)
_NUM_EVENTS = 500


def _columns() -> dict[str, ndarray]:
    rng = np.random.default_rng(0)
    sizes = {"x": _SENSOR_HW[1], "y": _SENSOR_HW[0], "p": 2}
    columns = {key: rng.integers(0, size, _NUM_EVENTS) for key, size in sizes.items()}
    return columns | {"t": np.sort(rng.integers(0, 1_000_000, _NUM_EVENTS))}


def _write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for key, column in _columns().items():
            compression: dict[str, Any] = {**hdf5plugin.Blosc()} if key in "xy" else {"compression": "gzip"}
            file.create_dataset(f"events/{key}", data=column, chunks=(100,), fletcher32=True, **compression)


def _write_metavision(path: Path) -> None:
    rows = np.zeros(_NUM_EVENTS, [("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
    for key, column in _columns().items():
        rows[key] = column
    with h5py.File(path, "w") as file:
        file.create_dataset("CD/events", data=rows, chunks=(128,))
        # Of fixed length: in a damaged heap of strings libhdf5 may search for ever, until the time limit of opening
        file.attrs["geometry"] = np.bytes_(f"{_SENSOR_HW[1]}x{_SENSOR_HW[0]}")


def _write_npz(path: Path) -> None:
    arrays: dict[str, Any] = {**_columns()}
    np.savez_compressed(path, **arrays)


def _write_text(path: Path) -> None:
    x, y, p, t = (_columns()[key].tolist() for key in "xypt")
    path.write_text("".join(f"{each[3]} {each[0]} {each[1]} {each[2]}\n" for each in zip(x, y, p, t, strict=True)))


def _write_dat(path: Path) -> None:
    x, y, p, t = (_columns()[key] for key in "xypt")
    words = np.stack([t, x | y << 14 | p << 28], axis=1).astype("<u4")
    path.write_bytes(b"% Version 2\n" + bytes([12, 8]) + words.tobytes())


def _write_evt2(path: Path) -> None:
    x, y, p, t = (_columns()[key] for key in "xypt")
    words = np.stack([8 << 28 | t >> 6, p << 28 | (t & 63) << 22 | x << 11 | y], axis=1).astype("<u4")
    path.write_bytes(b"% evt 2.0\n% end\n" + words.tobytes())


def _write_evt3(path: Path) -> None:
    x, y, p, t = (_columns()[key] for key in "xypt")
    words = np.stack([8 << 12 | t >> 12 & 0xFFF, 6 << 12 | t & 0xFFF, y, 2 << 12 | p << 11 | x], axis=1)
    path.write_bytes(b"% evt 3.0\n% end\n" + words.astype("<u2").tobytes())


def _write_aedat2(path: Path) -> None:
    x, y, p, t = (_columns()[key] for key in "xypt")
    words = np.stack([y << 22 | x << 12 | p << 11, t], axis=1).astype(">u4")
    path.write_bytes(b"#!AER-DAT2.0\r\n# AEChip: davis.Davis128\r\n" + words.tobytes())


WRITERS = {
    "plain.h5": _write_hdf5,
    "metavision.h5": _write_metavision,
    "a.npz": _write_npz,
    "a.txt": _write_text,
    "a.dat": _write_dat,
    "evt2.raw": _write_evt2,
    "evt3.raw": _write_evt3,
    "a.aedat": _write_aedat2,
}
_WITH_CHECKSUMS = ("a.npz",)


def write_recordings(folder: Path) -> dict[Path, partial[bytes]]:
    """Files of all formats but AEDAT4, whose reader is a process that takes its time; and a reader for each.

    Most formats have no checksum: another coordinate is then an event like any other, and only where there is one is
    what was read told apart.
    """
    paths = [folder / name for name in WRITERS]
    for path in paths:
        WRITERS[path.name](path)
    return {path: partial(_read, path) for path in paths}


def _read(path: Path) -> bytes:
    recording = Recording(path, (128, 128) if path.suffix == ".aedat" else _SENSOR_HW)
    columns = [(each.x, each.y, each.polarity, each.t_us) for each in recording.pieces()]
    return b"".join(c.tobytes() for each in columns for c in each) if path.name in _WITH_CHECKSUMS else b""
