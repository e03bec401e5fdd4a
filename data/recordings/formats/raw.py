"""Prophesee's RAW: words in one of the encodings EVT2, EVT2.1 and EVT3, behind a header of text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt
from numpy import ndarray

from config.errors import UserError
from data.recordings.formats.common import MOST_HEADER_BYTES, EventFile, RawEvents, Reading, faults_of
from data.recordings.formats.evt import Encoding, decode, drop_damaged_times
from data.recordings.growth import Growth, read_items

_ENCODINGS = {
    "EVT2": Encoding("<u4", type_bit=28, time_bit=0, time_bits=28, low_bits=6, near=16),
    "EVT21": Encoding("<u8", type_bit=60, time_bit=32, time_bits=28, low_bits=6, near=16),
    "EVT3": Encoding("<u2", type_bit=12, time_bit=0, time_bits=12, low_bits=12, near=2),
}
_LONGEST_LINE = 4096
_LEAST_WORDS = 2**16  # in a read: several high times are mostly among them
_MOST_WAITING = 2**23  # words without enough high times among them to judge one by
_LEAST_PIECE = 64  # a word holds up to 32 events


def open_raw(path: Path, reading: Reading) -> EventFile:
    header, first_byte = _read_header(path)
    name = _format_name(path, header)
    encoding = _ENCODINGS[name]
    is_whole = reading.growth is None
    if is_whole and (path.stat().st_size - first_byte) % np.dtype(encoding.word).itemsize:
        raise ValueError("it ends within a word")
    halves_swapped = header.get("endianness") == "legacy" and name == "EVT21"
    reader = _Reader(path, first_byte, encoding, halves_swapped, reading.growth)
    first_high = reader.first_high_time()
    if name == "EVT3":
        first_high = max(first_high - 1, 0)  # Prophesee's decoders begin one high time early in this encoding alone
    return EventFile(
        path,
        reader.pieces,
        _sensor_hw(path, header),
        clock_start_us=first_high << encoding.low_bits,
        damaged_words=lambda: reader.damaged_words,
    )


def _read_header(path: Path) -> tuple[dict[str, str], int]:
    """Values by key, the options of `format` among them, and the position of the first word."""
    header: dict[str, str] = {}
    with path.open("rb") as file:
        while (start := file.tell(), line := file.readline(_LONGEST_LINE))[1].startswith(b"%"):
            if line.strip() == b"% end":
                start = file.tell()
                break
            key, _, value = line[1:].decode("latin-1").strip().partition(" ")
            header[key.lower()] = value.strip()
            if file.tell() > MOST_HEADER_BYTES:
                raise ValueError("its header does not end")
    for option in header.get("format", "").split(";")[1:]:
        key, _, value = option.partition("=")
        header.setdefault(key.strip().lower(), value.strip())
    return header, start


def _format_name(path: Path, header: dict[str, str]) -> str:
    stated = header.get("format", "").split(";")[0].strip().upper() or f"EVT{header.get('evt', '')}".upper()
    name = stated.replace(".0", "").replace(".", "")
    if name in _ENCODINGS:
        return name
    told = f"is {stated}" if stated != "EVT" else "names no encoding (no line '% evt' or '% format')"
    raise UserError(
        f"{path}: its header {told}; RAW is read as {', '.join(_ENCODINGS)}. Convert it with Prophesee's "
        "metavision_file_to_hdf5 or metavision_file_to_dat"
    )


def _sensor_hw(path: Path, header: dict[str, str]) -> tuple[int, int] | None:
    width, _, height = header.get("geometry", "").partition("x")
    sizes = {(height, width), (header.get("height", ""), header.get("width", ""))} - {("", "")}
    if not all(text.isdecimal() for size in sizes for text in size):
        raise UserError(f"{path}: its header gives a sensor size that is none: {sorted(sizes)}. Get the recording anew")
    if len(sizes) > 1:
        raise UserError(
            f"{path}: its header gives two sensor sizes (height, width): {sorted(sizes)}. Mend '% geometry'"
        )
    return next(((int(height), int(width)) for height, width in sizes), None)


@dataclass
class _Reader:
    path: Path
    first_byte: int
    encoding: Encoding
    halves_swapped: bool  # EVT2.1 of the first cameras has the upper half of a word first
    growth: Growth | None
    damaged_words: int = 0

    def pieces(self, size: int) -> Iterator[RawEvents]:
        self.damaged_words = 0
        state = np.zeros(6, np.int64)
        state[0] = -1  # high time not known
        size = max(size, _LEAST_PIECE)
        with faults_of(self.path):
            for words in self._sound_words(size):
                begin = 0
                while begin < len(words):
                    x, y = np.empty((2, size), np.uint16)
                    p, t = np.empty(size, np.uint8), np.empty(size, np.int64)
                    begin, count = decode(self.encoding, words, begin, state, x, y, p, t)
                    if count:
                        yield RawEvents(x[:count], y[:count], p[:count], t[:count])

    def first_high_time(self) -> int:
        """0 without any."""
        with faults_of(self.path):
            for words in self._sound_words(_LEAST_WORDS):
                is_time = words >> self.encoding.type_bit == 8
                if is_time.any():
                    return int(self.encoding.high_times(words[is_time][:1])[0])
        return 0

    def _sound_words(self, size: int) -> Iterator[UInt[ndarray, " n"]]:
        """All words; a time word that those around it contradict is made one that says nothing."""
        dtype = np.dtype(self.encoding.word)
        last_high = np.full(1, -1, np.int64)
        waiting = np.empty(0, dtype)
        with self.path.open("rb") as file:
            file.seek(self.first_byte)
            is_complete = False
            while not is_complete:
                words = read_items(file, dtype, max(size, _LEAST_WORDS), self.growth)
                is_complete = len(words) == 0
                if self.halves_swapped:
                    words = words >> np.uint64(32) | words << np.uint64(32)
                words = np.concatenate([waiting, words]) if len(waiting) else words
                is_enough = is_complete or len(words) > _MOST_WAITING
                usable, damaged = drop_damaged_times(self.encoding, words, last_high, is_enough)
                self.damaged_words += damaged
                yield words[:usable]
                waiting = words[usable:]
