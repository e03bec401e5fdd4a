"""Compact frame store: stacked histograms kept as gaps between their non-zero cells.

Event frames are mostly zeros and small counts, so a frame is stored as three byte streams, compressed together by zstd:

- gaps: how many zero cells lie before each non-zero cell, in C order over [C, H, W]; the byte 255 skips 255 cells and
  stands for no cell;
- codes: two bits a non-zero cell, four to a byte, the first in the lowest bits: 0, 1, 2 are the counts 1, 2, 3, and 3
  refers to the next byte of
- large: the counts above 3.

The file is HDF5 with `payload` (the compressed frames back to back, uint8) and `frame_start` (int64 [N + 1], offsets
into `payload`). Every frame carries zstd's content checksum and the offsets fletcher32, so that damage is an error and
never a wrong frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
import zstandard
from jaxtyping import Int64, UInt8
from numpy import ndarray

from config.errors import UserError
from data.compiled import compiled
from data.hdf5_file import Hdf5Writer
from data.hdf5_trust import HDF5_ERRORS, vector_inside
from data.pixel_map import PixelMap

FORMAT = "compact-event-frames"
VERSION = 1
_SIZES = np.dtype("<u4")  # a frame's content begins with the lengths of gaps and of codes
_COMPRESSION_LEVEL = 1
_PAYLOAD_CHUNK = 2**15  # HDF5 rounds the file up to whole chunks
_WRITE_BYTES = 2**20  # HDF5 is slow to begin a write
_PLACES = 4096  # non-zero cells that are found before they are coded


class FrameStore:
    """Read access to one compact file; the handle stays open until `close`, and must not cross a fork.

    Raises UserError for a missing, foreign or damaged file.
    """

    frame_chw: tuple[int, int, int]

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise UserError(f"{path} not found. Write it with scripts/preprocess.py or scripts/compact_frames.py")
        try:
            self._file = h5py.File(path, "r", locking=False)  # data sets lie on read-only and network file systems
            form = (self._file.attrs.get("format"), self._file.attrs.get("version"))
            if form != (FORMAT, VERSION):
                raise UserError(f"{path} holds {form}, not {(FORMAT, VERSION)}. {_REMEDY}")
            channels, height, width = (int(size) for size in self._file.attrs["frame_chw"])
            self.frame_chw = channels, height, width
            file_bytes = path.stat().st_size
            self._payload = vector_inside(self._file, "payload", np.uint8, file_bytes)
            self._frame_start: Int64[ndarray, " n_and_one"] = vector_inside(
                self._file, "frame_start", np.int64, file_bytes
            )[:]
        except HDF5_ERRORS as error:
            raise UserError(f"{path} is damaged ({error}). {_REMEDY}") from error
        if len(self._frame_start) == 0 or self._frame_start[-1] != len(self._payload):
            raise UserError(f"{path} is cut short. {_REMEDY}")
        if self._frame_start[0] != 0 or (np.diff(self._frame_start) < 0).any() or not 0 < self._num_cells <= 2**28:
            raise UserError(f"{path} is damaged (its frames do not follow each other). {_REMEDY}")
        self._zstd = zstandard.ZstdDecompressor()

    def __len__(self) -> int:
        return len(self._frame_start) - 1

    @property
    def _num_cells(self) -> int:
        return int(np.prod(self.frame_chw, dtype=object)) if min(self.frame_chw) > 0 else 0

    def read(self, start: int, stop: int, out: UInt8[ndarray, "l c h w"], pixel_map: PixelMap | None = None) -> None:
        """Write frames start..stop-1 over out[: stop - start], moved by `pixel_map`; the rest of `out` is left alone.

        Each frame of `out` must be C-contiguous. Raises UserError where a frame is damaged.
        """
        assert 0 <= start <= stop <= len(self), f"frames {start}..{stop} of {len(self)}"
        assert out.dtype == np.uint8
        assert out[:1].flags.c_contiguous
        assert out.shape[1:] == self.frame_chw, f"{out.shape} for frames of {self.frame_chw}"
        offsets = self._frame_start[start : stop + 1]
        try:
            payload = memoryview(self._payload[offsets[0] : offsets[-1]])
            for frame, (begin, end) in zip(out, pairwise((offsets - offsets[0]).tolist()), strict=False):
                _decode(self._decompressed(payload[begin:end]), frame, pixel_map)
        except (*HDF5_ERRORS, zstandard.ZstdError) as error:
            raise UserError(f"{self.path}: frames {start}..{stop - 1} are damaged ({error}). {_REMEDY}") from error

    def _decompressed(self, payload: memoryview) -> bytes:
        claimed = zstandard.get_frame_parameters(payload).content_size
        if claimed > 3 * self._num_cells + 2 * _SIZES.itemsize:
            raise ValueError(f"a frame claims {claimed:,} bytes")
        return self._zstd.decompress(payload)

    def close(self) -> None:
        self._file.close()


_REMEDY = (
    "Delete it and run scripts/preprocess.py again, or, where RVT's frames file lies beside it, "
    "scripts/compact_frames.py"
)


class FrameStoreWriter:
    """Append frames one by one; a context manager. The file is complete, and readable, only once the block is left.

    Raises OSError where the disk is full.
    """

    def __init__(self, path: Path, frame_chw: tuple[int, int, int]) -> None:
        self._writer = Hdf5Writer(path)
        self._writer.file.attrs.update(format=FORMAT, version=VERSION, frame_chw=frame_chw)
        self._payload = self._writer.file.create_dataset(
            "payload", shape=(0,), maxshape=(None,), dtype=np.uint8, chunks=(_PAYLOAD_CHUNK,)
        )
        self._frame_start = [0]
        self._waiting: list[bytes] = []
        self._zstd = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL, write_checksum=True)
        self._frame_chw = frame_chw

    @property
    def attributes(self) -> h5py.AttributeManager:
        """What else the file tells, to be filled in before the block is left."""
        return self._writer.file.attrs

    def append(self, frame: UInt8[ndarray, "c h w"]) -> None:
        assert frame.dtype == np.uint8
        assert frame.shape == self._frame_chw
        compressed = self._zstd.compress(_encode(frame))
        self._waiting.append(compressed)
        self._frame_start.append(self._frame_start[-1] + len(compressed))
        if self._frame_start[-1] - len(self._payload) >= _WRITE_BYTES:
            self._write_waiting()

    def _write_waiting(self) -> None:
        begin = len(self._payload)
        self._payload.resize(self._frame_start[-1], axis=0)
        self._payload[begin:] = np.frombuffer(b"".join(self._waiting), dtype=np.uint8)
        self._waiting.clear()
        self._writer.check()

    def __enter__(self) -> FrameStoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._writer:
            if error is None:
                self._write_waiting()
                starts = np.array(self._frame_start, dtype=np.int64)
                self._writer.file.create_dataset("frame_start", data=starts, fletcher32=True)


def write_frame_store(path: Path, frames: Iterable[UInt8[ndarray, "c h w"]], frame_chw: tuple[int, int, int]) -> None:
    """Write all of `frames`; an exception on the way leaves a file that FrameStore refuses."""
    with FrameStoreWriter(path, frame_chw) as writer:
        for frame in frames:
            writer.append(frame)


def _encode(frame: UInt8[ndarray, "c h w"]) -> bytes:
    cells = np.ascontiguousarray(frame).reshape(-1)
    words = cells[: cells.size // 8 * 8].view(np.uint64)
    gaps, codes, large = np.empty_like(cells), np.zeros(-(-cells.size // 4), dtype=np.uint8), np.empty_like(cells)
    num_gaps, num_counts, num_large = _find_gaps(cells, words, gaps, codes, large, _PLACES)
    sizes = np.array([num_gaps, -(-num_counts // 4)], dtype=_SIZES).tobytes()
    return sizes + gaps[:num_gaps].tobytes() + codes[: -(-num_counts // 4)].tobytes() + large[:num_large].tobytes()


def _decode(content: bytes, frame: UInt8[ndarray, "c h w"], pixel_map: PixelMap | None) -> None:
    num_gaps, num_codes = np.frombuffer(content, dtype=_SIZES, count=2).tolist()
    streams = np.frombuffer(content, dtype=np.uint8, offset=2 * _SIZES.itemsize)
    gaps, codes, large = np.split(streams, [num_gaps, num_gaps + num_codes])
    frame.fill(0)
    if pixel_map is None:
        fits = _fill_cells(gaps, codes, large, frame.reshape(-1))
    else:
        rows, columns = pixel_map.row_targets, pixel_map.column_targets
        fits = _fill_moved_cells(gaps, codes, large, frame.reshape(-1), frame.shape, *rows, *columns)
        _repeat_rows(frame, *rows)
    if not fits:
        raise ValueError("the streams do not fit the frame")


@compiled
def _find_gaps(
    cells: ndarray, words: ndarray, gaps: ndarray, codes: ndarray, large: ndarray, block: int
) -> tuple[int, int, int]:
    """`words`: the cells by eights, as far as that goes, so that most of the empty ones are passed at once."""
    places = np.empty(block + 8, np.int64)
    num_gaps, num_counts, num_large, last, word = 0, 0, 0, -1, 0
    is_at_end = False
    while not is_at_end:
        found = 0
        while word < words.size and found < block:
            if words[word]:
                for place in range(8 * word, 8 * word + 8):  # without a branch: which cell is empty is chance
                    places[found] = place
                    found += cells[place] != 0
            word += 1
        if word == words.size and found < block:
            for place in range(8 * words.size, cells.size):
                places[found] = place
                found += cells[place] != 0
            is_at_end = True
        for place in places[:found]:
            cell, gap, last = cells[place], place - last - 1, place
            while gap >= 255:
                gaps[num_gaps] = 255
                num_gaps += 1
                gap -= 255
            gaps[num_gaps] = gap
            num_gaps += 1
            codes[num_counts >> 2] |= min(cell - 1, 3) << (2 * (num_counts & 3))
            num_counts += 1
            if cell > 3:
                large[num_large] = cell
                num_large += 1
    return num_gaps, num_counts, num_large


@compiled
def _fill_cells(gaps: ndarray, codes: ndarray, large: ndarray, cells: ndarray) -> bool:
    position, num_counts, num_large = 0, 0, 0
    for gap in gaps:
        position += gap
        if gap == 255:
            continue
        if position >= cells.size or num_counts >= 4 * codes.size:
            return False
        code = (codes[num_counts >> 2] >> (2 * (num_counts & 3))) & 3
        num_counts += 1
        if code < 3:
            cells[position] = code + 1
        elif num_large < large.size:
            cells[position] = large[num_large]
            num_large += 1
        else:
            return False
        position += 1
    return num_large == large.size


@compiled
def _fill_moved_cells(
    gaps: ndarray,
    codes: ndarray,
    large: ndarray,
    cells: ndarray,
    shape: tuple[int, int, int],
    first_row: ndarray,
    num_rows: ndarray,
    first_column: ndarray,
    num_columns: ndarray,
) -> bool:
    """As `_fill_cells`, but each cell goes to the columns, and the first of the rows, that a pixel map sends it to."""
    channels, height, width = shape
    position, num_counts, num_large = 0, 0, 0
    row_end, target_row, visible = 0, 0, False  # of the row that `position` is in
    for gap in gaps:
        position += gap
        if gap == 255:
            continue
        if position >= row_end:
            line = position // width
            row_end = (line + 1) * width
            channel, y = line // height, line % height
            if channel >= channels:
                return False
            target_row, visible = (channel * height + first_row[y]) * width, num_rows[y] > 0
        if num_counts >= 4 * codes.size:
            return False
        count = ((codes[num_counts >> 2] >> (2 * (num_counts & 3))) & 3) + 1
        num_counts += 1
        if count == 4:
            if num_large == large.size:
                return False
            count = large[num_large]
            num_large += 1
        if visible:
            x = position - row_end + width
            for column in range(first_column[x], first_column[x] + num_columns[x]):
                cells[target_row + column] = count
        position += 1
    return num_large == large.size


@compiled
def _repeat_rows(frame: ndarray, first_row: ndarray, num_rows: ndarray) -> None:
    """Copy the rows that a zoom in shows more than once."""
    for channel in range(frame.shape[0]):
        for first, number in zip(first_row, num_rows):  # noqa: B905 (numba knows no `strict`)
            for row in range(first + 1, first + number):
                frame[channel, row] = frame[channel, first]
