"""Prophesee's DAT, version 2: an array of two 32-bit words an event, behind a header of text."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from config.errors import UserError
from data.recordings.formats.common import MOST_HEADER_BYTES, EventFile, RawEvents, Reading, faults_of, file_outline
from data.recordings.growth import Growth, read_items

_EVENT = np.dtype([("t", "<u4"), ("address", "<u4")])  # 14 bits of x, 14 of y, then the polarity
_EVENT_2D, _CD = 0x00, 0x0C  # types of the events of a DAT: contrast detection under its old and its new number
_TRIGGERS = 0x0E


def open_dat(path: Path, reading: Reading) -> EventFile:
    header = {}
    with path.open("rb") as file:
        while (start := file.tell(), line := file.readline(4096))[1].startswith(b"%"):
            key, _, value = line[1:].decode("latin-1").strip().partition(" ")
            header[key.lower()] = value.strip()
            if file.tell() > MOST_HEADER_BYTES:
                raise ValueError("its header does not end")
        file.seek(start)
        event_type, event_bytes = file.read(2).ljust(2, b"\0")
        first_byte = file.tell()
    if header.get("version", "2") != "2" or event_bytes != _EVENT.itemsize:
        raise UserError(f"{path} is no DAT of version 2 with events of 8 bytes")
    if event_type not in (_EVENT_2D, _CD):
        what = "external triggers" if event_type == _TRIGGERS else "something else"
        raise UserError(
            f"{path} is a DAT of {what} (its events are of type {event_type:#04x}), not of contrast detection (type "
            f"{_CD:#04x}). Take the recording's file of CD events, usually NAME_td.dat"
        )
    num_events, rest = divmod(path.stat().st_size - first_byte, _EVENT.itemsize)
    if rest and reading.growth is None:
        raise ValueError(f"it ends within event {num_events}")
    return EventFile(
        path,
        partial(_pieces, path, first_byte, reading.growth),
        (int(header["height"]), int(header["width"])) if {"height", "width"} <= header.keys() else None,
        period=2**32,
        outline=partial(_outline, path, first_byte, num_events) if reading.growth is None else None,
    )


def _pieces(path: Path, first_byte: int, growth: Growth | None, size: int) -> Iterator[RawEvents]:
    with faults_of(path), path.open("rb") as file:
        file.seek(first_byte)
        while len(piece := read_items(file, _EVENT, size, growth)):
            address = piece["address"]
            x, y = (address & 0x3FFF).astype(np.uint16), (address >> 14 & 0x3FFF).astype(np.uint16)
            yield RawEvents(x, y, (address >> 28 & 1).astype(np.uint8), piece["t"].astype(np.int64))


def _outline(path: Path, first_byte: int, num_events: int) -> Int64[ndarray, " n"]:
    events = np.memmap(path, _EVENT, "r", first_byte, (num_events,)) if num_events else np.empty(0, _EVENT)
    return file_outline(lambda begin, end, step: events["t"][begin:end:step].astype(np.int64), num_events)
