"""Text with an event a line, `t x y p` unless a line above says otherwise, or the values do.

Numbers stand apart by blanks, tabs, commas or semicolons. A first line of two numbers is the sensor's width and height;
a line above all events may name the columns. Empty lines and those that begin with '#' or '%' are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from config.errors import UserError
from data.recordings.formats.columns import (
    DEFAULT_ORDER,
    HEAD_ROWS,
    KEYS,
    Layout,
    Part,
    by_names,
    by_values,
    time_unit,
    whole_coordinates,
    whole_polarity,
    whole_ticks,
)
from data.recordings.formats.common import NO_TIME, TICKS_PER_S, EventFile, RawEvents, Reading, faults_of
from data.recordings.formats.text_numbers import Numbers, parse

_BYTES_PER_EVENT = 24  # of a usual line: so many are read for a piece
_HEAD_BYTES = 2**20
_LONGEST_LINE = 2**20
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)
_SEPARATORS = re.compile(rb"[\s,;]+")


@dataclass(frozen=True)
class _Format:
    layout: Layout
    columns: dict[str, int]  # where x, y, p and t stand in a line
    num_columns: int
    first_byte: int  # of the first event's line
    first_line: int  # its number, from 1
    unit: str = "us"


def open_text(path: Path, reading: Reading) -> EventFile:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if b"\0" in head:
        raise UserError(f"{path} is no text in UTF-8: it has bytes of 0")
    found, sensor_hw, notes = _read_head(path, head)
    unit, unit_notes = time_unit(path, found.layout, None, reading)
    found = replace(found, unit=unit)
    return EventFile(
        path,
        partial(_pieces, path, found),
        sensor_hw,
        TICKS_PER_S["us" if unit in ("s", "ms") else unit],
        outline=partial(_outline, path, found),
        notes=(*notes, *unit_notes),
    )


def _read_head(path: Path, head: bytes) -> tuple[_Format, tuple[int, int] | None, tuple[str, ...]]:
    named: list[str] | None = None  # columns in their order
    sensor_hw = None
    at = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    for number, line in enumerate(head[at:].splitlines(keepends=True), start=1):
        is_comment = line.lstrip().startswith((b"#", b"%"))
        words = [word for word in _SEPARATORS.split(line.lstrip(b" \t#%")) if word]
        is_numeric = bool(words) and all(_NUMBER.fullmatch(word) for word in words)
        if is_numeric and len(words) == 2 and sensor_hw is None and all(word.isdigit() for word in words):
            sensor_hw = int(words[1]), int(words[0])
        elif is_numeric and not is_comment:
            layout, columns, notes = _layout(path, head[at:], number, len(words), named)
            return _Format(layout, columns, len(words), at, number), sensor_hw, notes
        elif words and not is_numeric:
            names = _names(line)
            if by_names(names) is not None:
                named = names
            elif not is_comment:
                raise UserError(
                    f"{path}, line {number}: {line.decode(errors='replace').strip()[:80]!r} names no columns x, y, p "
                    "and t. Name them so, or leave that line out for t x y p"
                )
        at += len(line)
    raise UserError(f"{path} has no line of an event, which is four numbers: t x y p")


def _names(line: bytes) -> list[str]:
    text = re.sub(r"\s+(?=[\[(])", "", line.decode(errors="replace").strip(" \t#%\r\n"))  # `t [us]` is one name
    separator = next((each for each in ",;\t" if each in text), None)
    return [name.strip() for name in text.split(separator)]


def _layout(
    path: Path, data: bytes, first_line: int, num_columns: int, names: list[str] | None
) -> tuple[Layout, dict[str, int], tuple[str, ...]]:
    if names is not None:
        if len(names) != num_columns:
            raise UserError(f"{path}: its header line names {len(names)} columns, its first event has {num_columns}")
        found, unit = by_names(names) or ({}, None)
        columns = {key: names.index(name) for key, name in found.items()}
        return Layout({key: Part(name) for key, name in found.items()}, unit), columns, ()
    if num_columns != 4:
        raise UserError(
            f"{path}, line {first_line}: an event has {num_columns} numbers, not four (t x y p). Name the columns in a "
            "first line, such as 't x y p label'"
        )
    lines = data.splitlines(keepends=True)[:HEAD_ROWS]
    whole_lines = lines if lines[-1].endswith(b"\n") else lines[:-1] or lines
    numbers = parse(path, b"".join(whole_lines), num_columns, first_line)
    rows = np.stack([numbers.column(index) for index in range(4)], axis=1)
    order = by_values(rows, default=DEFAULT_ORDER)
    if order is None:
        raise UserError(
            f"{path}: four columns whose values are no t x y p, x y t p or x y p t. Name them in a first line, such as "
            "'t x y p'; polarities are 0 and 1, -1 and 1, or 0 and 255"
        )
    columns = dict(zip(KEYS, order, strict=True))
    layout = Layout({key: Part(f"column {index + 1}") for key, index in columns.items()})
    spelled = " ".join(sorted(KEYS, key=columns.__getitem__))
    return layout, columns, (() if order == DEFAULT_ORDER else (f"columns are {spelled}, as their values say",))


def _pieces(path: Path, found: _Format, size: int) -> Iterator[RawEvents]:
    line, rest = found.first_line, b""
    with faults_of(path), path.open("rb") as file:
        file.seek(found.first_byte)
        while block := file.read(size * _BYTES_PER_EVENT):
            data, newline, after = (rest + block).rpartition(b"\n")
            rest = after
            if len(rest) > _LONGEST_LINE:
                raise ValueError("it has a line without an end")
            if newline:
                yield _raw_events(path, found, parse(path, data + newline, found.num_columns, line))
                line += data.count(b"\n") + 1
        if rest:
            yield _raw_events(path, found, parse(path, rest, found.num_columns, line))


def _outline(path: Path, found: _Format) -> Int64[ndarray, " n"]:
    """The first and the last lines."""
    with path.open("rb") as file:
        file.seek(found.first_byte)
        head, newline, _ = file.read(2**14).rpartition(b"\n")
        end = file.seek(0, 2)
        file.seek(max(end - 2**14, found.first_byte))
        tail = file.read()
    if end - 2**14 > found.first_byte:
        tail = tail.partition(b"\n")[2]
        tail = head + newline + tail
    return _raw_events(path, found, parse(path, tail, found.num_columns, found.first_line)).t


def _raw_events(path: Path, found: _Format, numbers: Numbers) -> RawEvents:
    parts = found.layout.parts
    columns = {key: numbers.column(index) for key, index in found.columns.items()}
    if found.unit in ("s", "ms"):
        whole, fraction = (each[:, found.columns["t"]] for each in numbers)
        ticks = TICKS_PER_S["us"] // TICKS_PER_S[found.unit]
        is_time = np.isfinite(fraction) & (np.abs(whole) < 2**61 // ticks)
        t = np.where(is_time, whole * ticks + np.rint(np.where(is_time, fraction, 0) * ticks).astype(np.int64), NO_TIME)
    else:
        t = whole_ticks(path, parts["t"], columns["t"], found.unit, 0)
    x, y = (whole_coordinates(path, parts[key], columns[key]) for key in "xy")
    return RawEvents(x, y, whole_polarity(path, parts["p"], columns["p"]), t)
