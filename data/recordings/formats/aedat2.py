"""AEDAT 2, the files of jAER, for the address formats of the DAVIS cameras. Only polarity events are read.

Behind a header of lines that begin with '#' there are pairs of big-endian words of 32 bits: address and time in us. An
address has its type in bit 31 (0: DVS), row in bits 22 to 30, column in 12 to 21, polarity in 11; bit 10 marks an event
from outside. Rows count from the bottom of the picture, after iniVation's description of the format. jAER's own viewer
mirrors the columns as well, which that description and eventcv do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from config.errors import UserError
from data.recordings.formats.common import MOST_HEADER_BYTES, EventFile, RawEvents, Reading, faults_of, file_outline

_EVENT = np.dtype([("address", ">u4"), ("t", ">u4")])
_SENSORS = {"346": (260, 346), "240": (180, 240), "208": (192, 208), "640": (480, 640), "128": (128, 128)}


def open_aedat2(path: Path, reading: Reading) -> EventFile:
    header, first_byte = _read_header(path)
    version = re.match(r"#!AER-DAT(\d+\.\d+)", header)
    if version is None or version[1] != "2.0":
        raise UserError(
            f"{path} is AEDAT {version[1] if version else '1.0'}; 2.0 (.aedat) and 4.0 (.aedat4) are read. Convert it "
            "to AEDAT4 with DV"
        )
    sensor_hw = _sensor_hw(path, header)
    num_events, rest = divmod(path.stat().st_size - first_byte, _EVENT.itemsize)
    if rest:
        raise ValueError(f"it ends within event {num_events}")
    return EventFile(
        path,
        partial(_pieces, path, first_byte, sensor_hw[0]),
        sensor_hw,
        period=2**32,
        outline=partial(_outline, path, first_byte, num_events),
        notes=("rows count from the bottom, columns from the left (jAER shows AEDAT 2 mirrored)",),
    )


def _read_header(path: Path) -> tuple[str, int]:
    header = b""
    with path.open("rb") as file:
        while (start := file.tell(), line := file.readline(2**16))[1].startswith(b"#"):
            header += line
            if len(header) > MOST_HEADER_BYTES:
                raise ValueError("its header does not end")
    return header.decode("latin-1"), start


def _sensor_hw(path: Path, header: str) -> tuple[int, int]:
    chip = re.search(r"AEChip:\s*(\S+)", header)
    davis = re.search(r"davis\w*?(\d{3})", chip[1].rpartition(".")[2].lower()) if chip else None
    if davis is None or davis[1] not in _SENSORS:
        raise UserError(
            f"{path}: addresses of {chip[1] if chip else 'an unnamed chip'} are not read, only those of the DAVIS "
            f"cameras ({', '.join(sorted(_SENSORS))}), which the header line 'AEChip' names. Convert it to AEDAT4 with "
            "DV"
        )
    return _SENSORS[davis[1]]


def _polarity_events(events: ndarray) -> ndarray:
    """Without samples of the picture and of the IMU (bit 31) and events from outside (bit 10)."""
    return events[events["address"] & (1 << 31 | 1 << 10) == 0]


def _pieces(path: Path, first_byte: int, height: int, size: int) -> Iterator[RawEvents]:
    with faults_of(path), path.open("rb") as file:
        file.seek(first_byte)
        while len(piece := np.fromfile(file, _EVENT, size)):
            piece = _polarity_events(piece)
            address = piece["address"].astype(np.int64)
            x, row = address >> 12 & 0x3FF, address >> 22 & 0x1FF
            yield RawEvents(x, height - 1 - row, address >> 11 & 1, piece["t"].astype(np.int64))


def _outline(path: Path, first_byte: int, num_events: int) -> Int64[ndarray, " n"]:
    events = np.memmap(path, _EVENT, "r", first_byte, (num_events,)) if num_events else np.empty(0, _EVENT)

    def times(begin: int, end: int, step: int) -> ndarray:
        return _polarity_events(events[begin:end:step])["t"].astype(np.int64)

    return file_outline(times, num_events)
