"""ECF against a plain encoder of its definition, and against bytes that Prophesee's own encoder wrote."""

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

from config.errors import UserError
from data.recordings.formats import ecf
from tests.event_files import EventRows, compound, make_events, read_events, write_metavision

INDEX = np.arange(40)
# prophesee-ai/hdf5_ecf (1.1), compiled, gave these for the formulas beside them; one chunk for each way of packing
PROPHESEES = {
    "rows, columns and polarities apart": (
        "a0000000e8030000000000000434343434343432f0faf6f8f1023434ff0028009f0c5f0d1f0edf0e9f0f5f101c111494",
        (100 + INDEX, np.full(40, 7), INDEX >= 20, 1000 + INDEX // 4 * 3 + (INDEX >= 30) * 100_000),
    ),
    "columns and polarities packed": (
        "a1000000050000000000000001" + "f4f101" * 39 + "0a002a004a006a00"
        "0b009404df008312bc1707120b25e4292f2383370c3c57440b4a344e7f00830c5c11a7110b1f8423cf228331ac36f7330b44d4481f40"
        "8306fc0b4701",
        (INDEX * 37 % 640, INDEX // 10, INDEX % 2, 5 + INDEX * 20),
    ),
    "all packed": (
        "a20000000010a5d4e80000000f11001f1100164b0000009460b005de10110b7229c116bc21711c07d209049a50820fe5e232152e93021ac378"
        "43080ca4f30d56541913eaa104013460b4067f10120c12c8c0175d21711da6d10a053bf0811084e23216ce92031b62194309aca3f30ef7531a"
        "148a400402d564b4071e10130db368c018fc20700046d10b06",
        (INDEX * 37 % 640, INDEX * 91 % 480, INDEX % 3 % 2, 10**12 + INDEX // 17),
    ),
}


def encode(rows: np.ndarray) -> bytes:
    """The plainest chunk: every event by itself, all packed."""
    x, y, p, t = (rows[name].astype(np.int64) for name in "xypt")
    data = struct.pack("<IQ", len(rows) << 2 | 2, t[0])
    for step in np.diff(t, prepend=t[0]):
        while step >= 15:  # 4 bits at a time, the lowest first; the last step itself is then 0
            nibbles = [step >> shift & 15 for shift in range(0, 64, 4) if step >> shift]
            data += bytes(0xF0 | nibble for nibble in nibbles)
            step = 0
        data += bytes([step << 4 | 1])
    packed = np.zeros(-(-len(rows) // 4) * 4, np.int64)
    packed[: len(rows)] = y << 12 | x << 1 | p
    for a, b, c, d in packed.reshape(-1, 4).tolist():
        data += struct.pack("<III", a << 8 | b & 0xFF, b >> 8 << 16 | c & 0xFFFF, c >> 16 << 24 | d)
    return data


def write_ecf(path: Path, events: EventRows, num_rows: int = 1000, damage: Callable[[bytes], bytes] = bytes) -> None:
    rows = compound(events, [("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
    write_metavision(path, events[:1], 1)
    with h5py.File(path, "r+") as file:
        del file["CD/events"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((num_rows,))
        properties.set_filter(ecf.FILTER, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((len(rows),))
        events_id = h5py.h5d.create(file["CD"].id, b"events", h5py.h5t.py_create(rows.dtype), space, properties)
        for begin in range(0, len(rows), num_rows):
            chunk = rows[begin : begin + num_rows]
            padded = np.concatenate([chunk, np.repeat(chunk[-1:], num_rows - len(chunk))])
            events_id.write_direct_chunk((begin,), damage(encode(padded)))


@pytest.mark.parametrize("case", PROPHESEES)
def test_chunks_of_prophesees_own_encoder(case: str) -> None:
    stored, columns = PROPHESEES[case]
    events = ecf.decode(np.frombuffer(bytes.fromhex(stored), np.uint8), 40)
    for name, column in zip("xypt", columns, strict=True):
        assert np.array_equal(events[name], column)


def test_a_file_of_metavision_with_the_codec(tmp_path: Path) -> None:
    events = make_events(4500)
    write_ecf(tmp_path / "a.hdf5", events)
    rows, recording = read_events(tmp_path / "a.hdf5")
    assert np.array_equal(rows, events)
    assert (recording.sensor_hw_of_file, recording.last_t_us) == ((480, 640), events[-1, 3])


@pytest.mark.parametrize("damage", [lambda data: data[:-50], lambda data: data[:8], lambda data: b"\xff" * len(data)])
def test_a_damaged_chunk_is_told(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    write_ecf(tmp_path / "a.hdf5", make_events(1500), damage=damage)
    with pytest.raises(UserError, match=r"a.hdf5 is damaged or cut short: a chunk of ECF"):
        read_events(tmp_path / "a.hdf5")


def test_any_bytes_are_answered_by_events_or_an_error() -> None:
    rng = np.random.default_rng(0)
    sound = [np.frombuffer(bytes.fromhex(stored), np.uint8) for stored, _ in PROPHESEES.values()]
    for trial in range(600):
        stored = sound[trial % 3].copy()
        stored[rng.integers(4, len(stored), 3)] = rng.integers(0, 256, 3)
        with suppress(ValueError):
            assert len(ecf.decode(stored[: rng.integers(12, len(stored) + 1)], 40)) == 40
