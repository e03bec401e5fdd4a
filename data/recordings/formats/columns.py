"""Which arrays, fields or columns of a file are x, y, p and t, and how their values become whole numbers.

HDF5, npz and text have no one layout. What is taken is what their names say; where four columns have no names, what
their values say; where both leave it open, the file is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from config.errors import UserError
from data.recordings.formats.common import NO_TIME, NOWHERE, TICKS_PER_S, RawEvents, Reading

KEYS = ("x", "y", "p", "t")
_SYNONYMS = {
    "x": {"x", "xs", "col", "column", "xaddr", "xcoord", "xcoordinate", "xcoordinates"},
    "y": {"y", "ys", "row", "yaddr", "ycoord", "ycoordinate", "ycoordinates"},
    "p": {"p", "ps", "pol", "pols", "polarity", "polarities", "on", "sign"},
    "t": {"t", "ts", "time", "times", "timestamp", "timestamps"},
}
_UNITS = {"s": "s", "sec": "s", "seconds": "s", "ms": "ms", "us": "us", "microseconds": "us", "ns": "ns"}
CONVENTIONS = ({0, 1}, {-1, 1}, {0, 255})  # of polarity; the greater value is brighter
DEFAULT_ORDER = [1, 2, 3, 0]  # columns of x, y, p, t in `t x y p`
_ORDERS = (DEFAULT_ORDER, [0, 1, 3, 2], [0, 1, 2, 3])  # `t x y p`, `x y t p`, `x y p t`
_FAR = 2**31
HEAD_ROWS = 2**16  # looked at where columns have no names


@dataclass(frozen=True)
class Part:
    """One of the four columns: an array, or a field or column of one."""

    array: str
    field: str | None = None
    column: int | None = None

    def __str__(self) -> str:
        if self.column is not None:
            return f"column {self.column} of {self.array}"
        return f"{self.array}[{self.field}]" if self.field else self.array

    def of(self, rows: ndarray) -> ndarray:
        """This column of an array whose first axis is that of events."""
        if self.field is not None:
            rows = rows[self.field]
        return rows[:, self.column] if self.column is not None else rows.reshape(len(rows))


@dataclass(frozen=True)
class Layout:
    parts: dict[str, Part]  # by key
    unit: str | None = None  # of time, where a name says it
    is_guess: bool = False  # taken from the values

    @property
    def arrays(self) -> list[str]:
        return sorted({part.array for part in self.parts.values()})


def by_names(names: Iterable[str]) -> tuple[dict[str, str], str | None] | None:
    """Name of each key's column, and the unit that t's has behind it (`t_us`, `t [ns]`); None if one is missing.

    A name that fits exactly goes before its synonyms.
    """
    found: dict[str, str] = {}
    unit = None
    for name in names:
        words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
        stated = _UNITS.get(words[-1]) if len(words) > 1 else None
        bare = "".join(words[:-1] if stated else words)
        for key, synonyms in _SYNONYMS.items():
            if bare in synonyms and (key not in found or bare == key):
                found[key] = name
                unit = stated if key == "t" else unit
    return (found, unit) if len(found) == len(KEYS) else None


def by_values(rows: ndarray, default: list[int] | None = None) -> list[int] | None:
    """Columns of x, y, p, t among four without names, from the first rows; None where the values fit no order.

    An order fits if polarity has values of one convention and time ascends. Where several fit, `default` is one of
    them or the answer is None.
    """
    rows = rows[np.isfinite(rows).all(axis=1)]
    if len(rows) == 0:
        return None
    can_be_polarity = [any(set(np.unique(column).tolist()) <= each for each in CONVENTIONS) for column in rows.T]
    can_be_time = [bool((np.diff(column) >= 0).mean() > 0.99) if len(rows) > 1 else True for column in rows.T]
    fitting = [order for order in _ORDERS if can_be_polarity[order[2]] and can_be_time[order[3]]]
    if default in fitting:
        return default
    return fitting[0] if len(fitting) == 1 else None


def whole_columns(path: Path, layout: Layout, blocks: Mapping[str, ndarray], unit: str, offset: float) -> RawEvents:
    """One piece of a file. Raises UserError for types and values that are no whole numbers."""
    columns = {key: part.of(blocks[part.array]) for key, part in layout.parts.items()}
    x, y = (whole_coordinates(path, layout.parts[key], columns[key]) for key in "xy")
    return RawEvents(
        x,
        y,
        whole_polarity(path, layout.parts["p"], columns["p"]),
        whole_ticks(path, layout.parts["t"], columns["t"], unit, offset),
    )


def time_unit(path: Path, layout: Layout, stated: str | None, reading: Reading) -> tuple[str, tuple[str, ...]]:
    """The unit of t, and what to tell the user of it. `stated`: an attribute of the file, if there is one."""
    told = layout.unit or _UNITS.get((stated or "").strip().lower())
    if told and reading.time_unit and told != reading.time_unit:
        raise UserError(
            f"{path} says that {layout.parts['t']} is in {told}, but dataset.preprocessing.time_unit is "
            f"{reading.time_unit}. Leave that setting out"
        )
    notes = (f"times are in {told}, as the file says",) if told and told != "us" else ()
    return told or reading.time_unit or "us", notes


def ticks_per_s(dtype: np.dtype, unit: str) -> int:
    """Of times as `whole_columns` gives them: floating-point ones become us."""
    return TICKS_PER_S["us"] if dtype.kind == "f" and unit in ("s", "ms") else TICKS_PER_S[unit]


def period(dtype: np.dtype) -> int | None:
    """Of a counter that has so many bits."""
    return 1 << 8 * dtype.itemsize if dtype.kind in "iu" and dtype.itemsize < 8 else None


def check_types(path: Path, layout: Layout, dtypes: Mapping[str, np.dtype]) -> None:
    for key, part in layout.parts.items():
        dtype = dtypes[key]
        if dtype.kind not in "iubf":
            raise UserError(f"{path}: {part} is {dtype}, not of an integer or floating-point type")


def _native(values: ndarray) -> ndarray:
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def whole_coordinates(path: Path, part: Part, values: ndarray) -> ndarray:
    if values.dtype.kind != "f":
        return _native(values)
    is_near = np.abs(values) < _FAR  # not so for NaN
    whole = np.where(is_near, values, NOWHERE)
    _refuse_fractions(path, part, whole, "pixels are whole numbers: events of rectified images cannot be read")
    return whole.astype(np.int64)


def whole_polarity(path: Path, part: Part, values: ndarray) -> ndarray:
    if values.dtype.kind != "f":
        return _native(values).view(np.uint8) if values.dtype.kind == "b" else _native(values)
    if not np.isfinite(values).all():
        raise UserError(f"{path}: {part} has polarities that are no numbers. Get the recording anew")
    _refuse_fractions(path, part, values, "polarities are 0 and 1, -1 and 1, or 0 and 255")
    return values.clip(-_FAR, _FAR).astype(np.int64)


def whole_ticks(path: Path, part: Part, values: ndarray, unit: str, offset: float) -> Int64[ndarray, " n"]:
    """Times in ticks of `ticks_per_s`; those that are no number become NO_TIME."""
    if values.dtype.kind != "f":
        values = np.minimum(_native(values), 2**62) if values.dtype == np.uint64 else values
        ticks = values.astype(np.int64, copy=False)
        return ticks + int(offset) if offset else ticks
    values = values.astype(np.float64) + offset
    if unit in ("s", "ms"):
        values = np.rint(values * (TICKS_PER_S["us"] // TICKS_PER_S[unit]))
    is_near = np.abs(values) < 2.0**61
    values = np.where(is_near, values, 0)
    _refuse_fractions(
        path, part, values, f"times in {unit} are whole numbers. If they are in s or ms, say so: "
        "dataset.preprocessing.time_unit=s"
    )  # fmt: skip
    return np.where(is_near, values.astype(np.int64), NO_TIME)


def _refuse_fractions(path: Path, part: Part, values: ndarray, remedy: str) -> None:
    has_fraction = values != np.rint(values)
    if has_fraction.any():
        raise UserError(f"{path}: {part} has fractions, such as {values[has_fraction.argmax()]:.9g}, but {remedy}")
