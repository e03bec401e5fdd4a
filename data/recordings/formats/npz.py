"""npz: arrays in a zip file, by name as in HDF5. They are read piece by piece as they are decompressed."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from numpy import ndarray

from config.errors import UserError
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
)
from data.recordings.formats.common import (
    MOST_EVENTS_PER_BYTE,
    MOST_ROW_BYTES,
    EventFile,
    RawEvents,
    Reading,
    faults_of,
)

_MOST_HEADER_BYTES = 10_000  # numpy's own limit, which it looks at after reading
_MOST_ARRAYS = 1000


@dataclass(frozen=True)
class _Array:
    """As its header describes it, seen as rows of events."""

    member: str
    dtype: np.dtype
    shape: tuple[int, ...]
    is_fortran: bool
    header_bytes: int

    @property
    def has_columns(self) -> bool:
        return len(self.shape) == 2 and self.shape[1] == 4

    @property
    def num_rows(self) -> int:
        return self.shape[0] if self.has_columns else math.prod(self.shape)

    def open(self, archive: zipfile.ZipFile, stack: ExitStack) -> Callable[[int], ndarray]:
        """A function that gives the next so many rows."""
        column_by_column = self.has_columns and self.is_fortran
        streams = [stack.enter_context(archive.open(self.member)) for _ in range(4 if column_by_column else 1)]
        for index, stream in enumerate(streams):
            stream.seek(self.header_bytes + index * self.num_rows * self.dtype.itemsize)
        width = 4 if self.has_columns and not column_by_column else 1

        def read(num_rows: int) -> ndarray:
            parts = [self._read(stream, num_rows * width) for stream in streams]
            if column_by_column:
                return np.stack(parts, axis=1)
            return parts[0].reshape(num_rows, 4) if self.has_columns else parts[0]

        return read

    def _read(self, stream: IO[bytes] | zipfile.ZipExtFile, num_values: int) -> ndarray:
        data = stream.read(num_values * self.dtype.itemsize)
        if len(data) < num_values * self.dtype.itemsize:
            raise ValueError(f"{self.member} ends early")
        return np.frombuffer(data, self.dtype)

    def head(self, archive: zipfile.ZipFile, num_rows: int) -> ndarray:
        with ExitStack() as stack:
            return self.open(archive, stack)(min(num_rows, self.num_rows))


def open_npz(path: Path, reading: Reading) -> EventFile:
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        if len(members) > _MOST_ARRAYS:
            raise ValueError(f"it holds {len(members):,} arrays")
        arrays = dict(_read_header(path, archive, info) for info in members)
        layout = _find_layout(path, archive, arrays)
        sensor_hw = _sensor_hw(archive, arrays)
    sizes = {str(part): arrays[part.array].num_rows for part in layout.parts.values()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"{path}: x, y, p and t differ in length ({sizes}). Get the recording anew")
    num_events, most_events = min(sizes.values()), MOST_EVENTS_PER_BYTE * path.stat().st_size
    widest = max(arrays[name].dtype.itemsize for name in layout.arrays)
    if num_events > most_events or widest > MOST_ROW_BYTES:
        raise ValueError(f"it claims {num_events:,} events of {widest:,} bytes in {path.stat().st_size:,} bytes")
    dtypes = {key: _dtype(arrays, part) for key, part in layout.parts.items()}
    check_types(path, layout, dtypes)
    unit, notes = time_unit(path, layout, None, reading)
    if layout.is_guess:
        order = sorted(KEYS, key=lambda key: layout.parts[key].column or 0)
        notes = (*notes, f"columns are {' '.join(order)}, as their values say")
    used = {name: arrays[name] for name in layout.arrays}
    t = dtypes["t"]
    return EventFile(
        path, partial(_pieces, path, layout, used, unit), sensor_hw, ticks_per_s(t, unit), period(t), notes=notes
    )


def _read_header(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[str, _Array]:
    with archive.open(info) as stream:
        shape, is_fortran, dtype = _array_header(stream)
        header_bytes = stream.tell()
    name = info.filename.removesuffix(".npy")
    if dtype.hasobject:
        raise UserError(f"{path}: {name} holds Python objects, which are not read. Save it with a numeric type")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != info.file_size - header_bytes or min(shape, default=0) < 0:
        raise ValueError(f"{name} claims {claimed:,} bytes and has {info.file_size - header_bytes:,}")
    return name, _Array(info.filename, dtype, shape, is_fortran, header_bytes)


def _array_header(stream: IO[bytes] | zipfile.ZipExtFile) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    length = stream.read(2 if version == (1, 0) else 4)
    text = stream.read(min(int.from_bytes(length, "little"), _MOST_HEADER_BYTES))
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(BytesIO(length + text))
    return np.lib.format.read_array_header_2_0(BytesIO(length + text))


def _find_layout(path: Path, archive: zipfile.ZipFile, arrays: dict[str, _Array]) -> Layout:
    columns = [
        name for name, array in arrays.items() if array.shape and not array.dtype.names and not array.has_columns
    ]
    if named := by_names(columns):
        return Layout({key: Part(name) for key, name in named[0].items()}, named[1])
    found = [layout for name, array in arrays.items() if (layout := _layout_of_one(name, array, archive))]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(f"{name} {array.shape} {array.dtype}" for name, array in list(arrays.items())[:12])
    raise UserError(
        f"{path} has no arrays x, y, p and t, nor one array of them, as docs/formats.md lists. It holds "
        f"{listed or 'nothing'}"
    )


def _layout_of_one(name: str, array: _Array, archive: zipfile.ZipFile) -> Layout | None:
    if array.dtype.names:
        named = by_names(array.dtype.names)
        return (
            None
            if named is None
            else Layout({key: Part(name, field=field) for key, field in named[0].items()}, named[1])
        )
    if not array.has_columns or array.dtype.kind not in "iuf":
        return None
    order = by_values(array.head(archive, HEAD_ROWS))
    return (
        None
        if order is None
        else Layout({key: Part(name, column=i) for key, i in zip(KEYS, order, strict=True)}, is_guess=True)
    )


def _dtype(arrays: dict[str, _Array], part: Part) -> np.dtype:
    dtype = arrays[part.array].dtype
    return dtype[part.field] if part.field else dtype


def _sensor_hw(archive: zipfile.ZipFile, arrays: dict[str, _Array]) -> tuple[int, int] | None:
    sizes = []
    for name in ("height", "width"):
        if name not in arrays or arrays[name].num_rows != 1 or arrays[name].dtype.kind not in "iu":
            return None
        sizes.append(int(arrays[name].head(archive, 1)[0]))
    return sizes[0], sizes[1]


def _pieces(path: Path, layout: Layout, arrays: dict[str, _Array], unit: str, size: int) -> Iterator[RawEvents]:
    num_events = next(iter(arrays.values())).num_rows
    with faults_of(path), zipfile.ZipFile(path) as archive, ExitStack() as stack:
        readers = {name: array.open(archive, stack) for name, array in arrays.items()}
        for begin in range(0, num_events, size):
            count = min(size, num_events - begin)
            yield whole_columns(path, layout, {name: read(count) for name, read in readers.items()}, unit, 0)
