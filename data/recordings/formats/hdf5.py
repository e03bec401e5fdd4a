"""HDF5 in the layouts that the field uses.

A group with four data sets (`events/{x,y,p,t}`, `events/{xs,ys,ps,ts}`), a compound data set (Metavision's `CD/events`,
`events`), or an array of four columns. Where a file has several of these, `events` is taken, else it is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  recordings may be compressed with any of its filters
import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from config.errors import UserError
from data.hdf5_trust import filters_of, leads_out
from data.recordings.formats import ecf
from data.recordings.formats.columns import (
    HEAD_ROWS,
    KEYS,
    Layout,
    Part,
    by_names,
    by_values,
    check_types,
    period,
    ticks_per_s,
    time_unit,
    whole_columns,
    whole_ticks,
)
from data.recordings.formats.common import (
    MOST_EVENTS_PER_BYTE,
    MOST_ROW_BYTES,
    EventFile,
    RawEvents,
    Reading,
    faults_of,
    file_outline,
)

_LARGEST_CHUNK = 2**30  # bytes; a read decompresses whole chunks
# HDF5's own (deflate, shuffle, fletcher32, szip, nbit, scaleoffset), LZF, bzip2, and of hdf5plugin Blosc, LZ4,
# bitshuffle, zstd and Blosc 2. A damaged number must not load another plug-in: some end the process over odd bytes
_FILTERS = {1, 2, 3, 4, 5, 6, 307, 32000, 32001, 32004, 32008, 32015, 32026, ecf.FILTER}
_COPY = "Copy it into this one (h5repack does)"
_UNIT_ATTRIBUTES = ("unit", "units", "time_unit")


@dataclass(frozen=True)
class _Opened:
    path: Path
    layout: Layout
    unit: str
    offset: float


def open_hdf5(path: Path, reading: Reading) -> EventFile:
    with h5py.File(path, "r", locking=False) as file:
        layout = _find_layout(path, file)
        num_events = _check(path, file, layout)
        t = file[layout.parts["t"].array]
        stated = next((str(t.attrs[name]) for name in _UNIT_ATTRIBUTES if name in t.attrs), None)
        unit, notes = time_unit(path, layout, stated, reading)
        opened = _Opened(path, layout, unit, _offset(file, layout))
        dtypes = {key: _dtype(file, part) for key, part in layout.parts.items()}
        check_types(path, layout, dtypes)
        sensor_hw = _sensor_hw(file, layout)
    if layout.is_guess:
        order = sorted(KEYS, key=lambda key: layout.parts[key].column or 0)
        notes = (*notes, f"columns are {' '.join(order)}, as their values say")
    return EventFile(
        path,
        partial(_pieces, opened, num_events),
        sensor_hw,
        ticks_per_s(dtypes["t"], unit),
        period(dtypes["t"]),
        outline=partial(_outline, opened, num_events),
        notes=notes,
    )


def _find_layout(path: Path, file: h5py.File) -> Layout:
    found: dict[str, Layout] = {}
    held: list[str] = []

    def look(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset):
            held.append(f"{name} {node.shape} {node.dtype}")
        layout = _layout_of(name, node)
        if layout is not None:
            found[name] = layout

    look("", file)
    file.visititems(look)
    name = "events" if "events" in found else next(iter(found), None)
    if len(found) > 1 and name != "events":
        raise UserError(
            f"{path} has events in several places: {', '.join(found)}. Write those of one camera into a file of their "
            "own, as events/x, y, p and t"
        )
    if name is None:
        listed = "; ".join(held[:12]) + ("; ..." if len(held) > 12 else "")
        raise UserError(
            f"{path} has no events/x, events/y, events/p and events/t, nor another layout that is known "
            f"(docs/formats.md). It holds {listed or 'nothing'}"
        )
    return found[name]


def _layout_of(name: str, node: h5py.Group | h5py.Dataset) -> Layout | None:
    if isinstance(node, h5py.Group):
        named = by_names(key for key in node if leads_out(node, key) or _is_column(getattr(node.get(key), "shape", ())))
        if named is None:
            return None
        for key in named[0].values():
            _require_inside(node, key)
        return Layout({key: Part(f"{name}/{column}".strip("/")) for key, column in named[0].items()}, named[1])
    if node.dtype.names:
        named = by_names(node.dtype.names)
        return (
            None
            if named is None
            else Layout({key: Part(name, field=field) for key, field in named[0].items()}, named[1])
        )
    if len(node.shape) == 2 and 4 in node.shape and node.dtype.kind in "iuf":
        _check_array(node)
        order = by_values(_rows(node, 0, HEAD_ROWS))
        return (
            None
            if order is None
            else Layout({key: Part(name, column=i) for key, i in zip(KEYS, order, strict=True)}, is_guess=True)
        )
    return None


def _is_column(shape: tuple[int, ...]) -> bool:
    return len(shape) > 0 and math.prod(shape) == max(shape)


def _length(array: h5py.Dataset) -> int:
    if len(array.shape) == 2 and 4 in array.shape and min(array.shape) > 1:
        return array.shape[0] if array.shape[1] == 4 else array.shape[1]
    return max(array.shape)


def _rows(array: h5py.Dataset, begin: int, end: int, step: int = 1) -> ndarray:
    """Events `begin` to `end`, on the first axis."""
    if ecf.is_used_by(array):
        return ecf.read(array, begin, end)[::step]
    part = slice(begin, min(end, _length(array)), step)
    if len(array.shape) < 2:
        rows = array[part]
        if array.chunks and step == 1:
            _require_found(array, begin, rows)
        return rows
    return array[part] if array.shape[0] == _length(array) else np.moveaxis(array[..., part], -1, 0)


def _require_found(array: h5py.Dataset, begin: int, rows: ndarray) -> None:
    """A chunk that is stored reads as the fill value where damage in the tree of chunks hides it."""
    (size,) = array.chunks or array.shape
    first = -begin % size
    whole = rows[first : first + (len(rows) - first) // size * size].reshape(-1, size)
    samples = whole[:, :: max(size // 4, 1)] == array.fillvalue
    places = begin + first + size * np.flatnonzero(samples.all(axis=1))
    ends = {begin // size * size, (begin + len(rows) - 1) // size * size} if len(rows) else set()
    for at in [*places.tolist(), *ends]:
        try:
            array.id.read_direct_chunk((at,))
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{array.name.strip('/')}: the values from {at:,} on are not found") from error


def _dtype(file: h5py.File, part: Part) -> np.dtype:
    dtype = file[part.array].dtype
    return dtype[part.field] if part.field else dtype


def _check(path: Path, file: h5py.File, layout: Layout) -> int:
    """Number of events. Raises UserError for columns that differ in length or are not stored as a whole."""
    sizes = {str(part): _length(file[part.array]) for part in layout.parts.values()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"{path}: x, y, p and t differ in length ({sizes}). Get the recording anew")
    for name in layout.arrays:
        _check_array(file[name])
    return next(iter(sizes.values()))


def _check_array(array: h5py.Dataset) -> None:
    """Before anything of it is read: what was never written would be zeros, and a claimed size may be any."""
    path, name = array.file.filename, array.name.strip("/")
    if array.is_virtual or array.external:
        raise UserError(f"{path}: {name} stands in another file. {_COPY}")
    for number in filters_of(array):
        if number not in _FILTERS or (number != ecf.FILTER and not h5py.h5z.filter_avail(number)):
            raise UserError(
                f"{path}: {name} is compressed with HDF5 filter {number}, which is not read here. Repack it"
            )
    if array.size == 0:
        return
    file_bytes = Path(path).stat().st_size
    if array.chunks is None:
        is_whole = array.id.get_storage_size() >= array.size * array.dtype.itemsize
    else:
        if math.prod(array.chunks) * array.dtype.itemsize > _LARGEST_CHUNK:
            raise UserError(f"{path}: {name} has chunks of {array.chunks}, too large to read. Repack it (h5repack -l)")
        is_whole = _stores_each_chunk_once(array, file_bytes)
    if not is_whole:
        raise ValueError(f"{name} claims {array.size:,} values, of which not all are stored")
    length = _length(array) if array.shape else 1
    row_bytes = array.dtype.itemsize * (math.prod(array.shape) // length)
    if row_bytes > MOST_ROW_BYTES or length > MOST_EVENTS_PER_BYTE * file_bytes:
        raise ValueError(f"{name} claims {length:,} events of {row_bytes:,} bytes in {file_bytes:,} bytes")


def _stores_each_chunk_once(array: h5py.Dataset, file_bytes: int) -> bool:
    shape, chunks = array.shape, array.chunks or array.shape
    if array.id.get_num_chunks() != math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)):
        return False
    found: list[tuple[int, ...]] = []
    array.id.chunk_iter(lambda chunk: found.append((chunk.byte_offset or 0, chunk.size, *chunk.chunk_offset)))
    begin, num_bytes, *starts = np.array(sorted(found), dtype=object).T
    end = begin + num_bytes
    on_grid = (((at % chunk == 0) & (at < size)).all() for at, size, chunk in zip(starts, shape, chunks, strict=True))
    are_apart = begin[0] > 0 and end[-1] <= file_bytes and (end[:-1] <= begin[1:]).all()
    return bool(are_apart and all(on_grid) and len(set(zip(*starts, strict=True))) == len(found))


def _offset(file: h5py.File, layout: Layout) -> float:
    """DSEC's `t_offset`, beside or in the group of events."""
    group = file[layout.parts["t"].array].parent
    return next((_scalar(place, "t_offset") for place in (group, file) if "t_offset" in place), 0)


def _scalar(place: h5py.Group | h5py.AttributeManager, key: str) -> float:
    if isinstance(place, h5py.Group):
        _require_inside(place, key)
        _check_array(place[key])
        if place[key].size != 1:
            raise ValueError(f"{key} is {place[key].shape}, not one number")
    return np.asarray(place[key][()]).item()


def _require_inside(group: h5py.Group, key: str) -> None:
    if leads_out(group, key):
        name = f"{group.name}/{key}".strip("/")
        raise UserError(f"{group.file.filename}: {name} stands in another file. {_COPY}")


def _sensor_hw(file: h5py.File, layout: Layout) -> tuple[int, int] | None:
    group = file[layout.parts["t"].array].parent
    for place in (group, group.attrs, file, file.attrs):
        if "height" in place and "width" in place:
            height, width = (int(_scalar(place, key)) for key in ("height", "width"))
            return height, width
    for attributes in (group.attrs, file.attrs):
        told = attributes.get("geometry", "")
        width, _, height = (told.decode("latin-1") if isinstance(told, bytes) else str(told)).partition("x")
        if width.isdecimal() and height.isdecimal():
            return int(height), int(width)
    return None


def _pieces(opened: _Opened, num_events: int, size: int) -> Iterator[RawEvents]:
    with faults_of(opened.path), h5py.File(opened.path, "r", locking=False) as file:
        arrays = {name: file[name] for name in opened.layout.arrays}
        for begin in range(0, num_events, size):
            blocks = {name: _rows(array, begin, begin + size) for name, array in arrays.items()}
            yield whole_columns(opened.path, opened.layout, blocks, opened.unit, opened.offset)


def _outline(opened: _Opened, num_events: int) -> Int64[ndarray, " n"]:
    part = opened.layout.parts["t"]
    with h5py.File(opened.path, "r", locking=False) as file:
        array, dtype = file[part.array], _dtype(file, part)

        def times(begin: int, end: int, step: int) -> ndarray:
            return part.of(_rows(array, begin, end, step)) if end > begin else np.empty(0, dtype)

        # Those in the middle cost all chunks of times: worth it only where a counter may have started again
        values = file_outline(times, num_events, stride=2**16 if period(dtype) else None)
    return whole_ticks(opened.path, part, values, opened.unit, opened.offset)
