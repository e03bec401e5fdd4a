"""Prophesee's ECF, HDF5 filter 0x8ECF, which compresses `CD/events` in the files of Metavision's tools.

No package has the codec as a plug-in of HDF5, so that chunks are read as stored and decoded here. A chunk is

- 4 bytes: number of events << 2 | rows, columns and polarities are packed << 1 | columns and polarities are packed;
- times: 8 bytes for the first. Then bytes of (step, count), 4 bits each: `count` events at the time `step` later; a
  count of 15 stands for the 16 bits that follow. Bytes with step 15 carry 4 bits each of a longer step, the lowest
  first, up to the first byte without;
- all packed: 4 events in 3 words of 32 bits, 24 bits each from the top: row << 12 | column << 1 | polarity;
- else rows: words of 16 bits (row, count), 11 and 5; a count of 31 stands for the word that follows;
- then either columns and polarities packed: 4 events in 3 words of 16 bits, 12 bits each: column << 1 | polarity;
- or columns: words of 16 bits (column, mask of the 5 next, the nearest on top), then polarities: bytes (polarity,
  count), 1 and 7; a count of 127 stands for the 16 bits that follow.

All is little-endian. Source: prophesee-ai/hdf5_ecf (Apache 2.0), whose encoder the tests' files are compared with.
"""

from __future__ import annotations

import h5py
import numpy as np
from jaxtyping import Int64, Shaped, UInt8
from numpy import ndarray

from data.compiled import compiled

FILTER = 0x8ECF
EVENT = np.dtype([("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
_LARGEST_CHUNK = 65_535  # events, by the codec's definition


def is_used_by(array: h5py.Dataset) -> bool:
    filters = array.id.get_create_plist()
    return any(filters.get_filter(index)[0] == FILTER for index in range(filters.get_nfilters()))


def read(array: h5py.Dataset, begin: int, end: int) -> Shaped[ndarray, " n"]:
    """Events `begin` to `end`. Raises ValueError for a damaged chunk."""
    size = array.chunks[0]
    end = min(end, array.shape[0])
    if end <= begin:
        return np.empty(0, EVENT)
    first = begin // size * size
    chunks = [_read_chunk(array, at, min(size, array.shape[0] - at)) for at in range(first, end, size)]
    return np.concatenate(chunks)[begin - first : end - first]


def _read_chunk(array: h5py.Dataset, at: int, num_events: int) -> Shaped[ndarray, " n"]:
    filters_left_out, stored = array.id.read_direct_chunk((at,))
    if filters_left_out:
        return np.frombuffer(stored, array.dtype)[:num_events]
    return decode(np.frombuffer(stored, np.uint8), num_events)


def decode(stored: UInt8[ndarray, " b"], num_events: int) -> Shaped[ndarray, " n"]:
    """The first `num_events` of a chunk as stored. Raises ValueError where it is damaged."""
    size = int(stored[:4].view("<u4")[0]) >> 2 if len(stored) >= 12 else -1
    if not num_events <= size <= _LARGEST_CHUNK:
        raise ValueError(f"a chunk of ECF holds {size} events instead of {num_events}")
    all_packed, columns_packed = stored[0] >> 1 & 1, stored[0] & 1
    t = np.empty(size, np.int64)
    rest = _behind(stored, _decode_times(_with_margin(stored), t))
    if all_packed:
        packed = _unpack(rest, "<u4", size)
        x, y, p = packed >> 1 & 0x7FF, packed >> 12 & 0x7FF, packed & 1
    else:
        y = np.empty(size, np.uint16)
        rest = _behind(rest, _decode_rows(_with_margin(rest), y))
        if columns_packed:
            packed = _unpack(rest, "<u2", size)
            x, p = packed >> 1, packed & 1
        else:
            x, p = np.empty(size + 5, np.uint16), np.empty(size, np.uint8)
            rest = _behind(rest, _decode_columns(_with_margin(rest), x, size))
            _behind(rest, _decode_polarities(_with_margin(rest), p))
    events = np.empty(num_events, EVENT)
    for name, column in zip("xypt", (x, y, p, t), strict=True):
        events[name] = column[:num_events]
    return events


def _with_margin(stored: UInt8[ndarray, " b"]) -> UInt8[ndarray, " m"]:
    """A step of the loops below may look at a few bytes behind the end, which is noticed afterwards."""
    return np.concatenate([stored, np.zeros(8, np.uint8)])


def _behind(stored: UInt8[ndarray, " b"], used: int) -> UInt8[ndarray, " r"]:
    if not 0 <= used <= len(stored):
        raise ValueError("a chunk of ECF is damaged")
    return stored[used:]


def _unpack(stored: UInt8[ndarray, " b"], word: str, size: int) -> Int64[ndarray, " n"]:
    """Four values lie in three words, each value's lower bits in what the word before or behind has left."""
    quarters, bits = -(-size // 4), 8 * np.dtype(word).itemsize
    used = stored[: 3 * quarters * bits // 8]
    if len(used) < 3 * quarters * bits // 8:
        raise ValueError("a chunk of ECF is damaged")
    words, part = used.view(word).reshape(-1, 3).astype(np.int64).T, bits // 4
    low, half = (1 << part) - 1, (1 << 2 * part) - 1
    values = (
        words[0] >> part,
        words[0] & low | words[1] >> 2 * part << part,
        words[1] & half | words[2] >> 3 * part << 2 * part,
        words[2] & (1 << 3 * part) - 1,
    )
    return np.stack(values, axis=1).ravel()[:size]


# The loops return the number of bytes used, -1 where a count goes past the number of events


@compiled
def _decode_times(stored: ndarray, t: ndarray) -> int:
    stop, at, i, time = stored.size - 8, 12, 0, np.int64(0)
    for k in range(8):
        time |= np.int64(stored[4 + k]) << 8 * k
    while i < t.size:
        if at >= stop:
            return -1
        step, count = np.int64(stored[at] >> 4), np.int64(stored[at] & 15)
        at += 1
        shift = 0
        while step == 15:
            if at >= stop or shift > 59:
                return -1
            time += count << shift
            shift += 4
            step, count = np.int64(stored[at] >> 4), np.int64(stored[at] & 15)
            at += 1
        if count == 15:
            count = np.int64(stored[at]) | np.int64(stored[at + 1]) << 8
            at += 2
        time += step
        if count == 0 or i + count > t.size:
            return -1
        t[i : i + count] = time
        i += count
    return at


@compiled
def _decode_rows(stored: ndarray, y: ndarray) -> int:
    stop, at, i = stored.size - 8, 0, 0
    while i < y.size:
        if at >= stop:
            return -1
        word = np.int64(stored[at]) | np.int64(stored[at + 1]) << 8
        at += 2
        count = word & 31
        if count == 31:
            count = np.int64(stored[at]) | np.int64(stored[at + 1]) << 8
            at += 2
        if count == 0 or i + count > y.size:
            return -1
        y[i : i + count] = word >> 5
        i += count
    return at


@compiled
def _decode_columns(stored: ndarray, x: ndarray, size: int) -> int:
    stop, at, i = stored.size - 8, 0, 0
    while i < size:
        if at >= stop:
            return -1
        word = np.int64(stored[at]) | np.int64(stored[at + 1]) << 8
        at += 2
        x[i] = word >> 5
        i += 1
        for k in range(5):
            if word >> (4 - k) & 1:
                x[i] = (word >> 5) + k + 1
                i += 1
    return at


@compiled
def _decode_polarities(stored: ndarray, p: ndarray) -> int:
    stop, at, i = stored.size - 8, 0, 0
    while i < p.size:
        if at >= stop:
            return -1
        polarity, count = stored[at] >> 7, np.int64(stored[at] & 127)
        at += 1
        if count == 127:
            count = np.int64(stored[at]) | np.int64(stored[at + 1]) << 8
            at += 2
        if count == 0 or i + count > p.size:
            return -1
        p[i : i + count] = polarity
        i += count
    return at
