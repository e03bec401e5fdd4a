"""One frame as bytes: the gaps between its non-zero cells.

Event frames are mostly zeros and small counts, so a frame is kept as three byte streams, one after the other behind the
lengths of the first two:

- gaps: how many zero cells lie before each non-zero cell, in C order over [C, H, W]; the byte 255 skips 255 cells and
  stands for no cell;
- codes: two bits a non-zero cell, four to a byte, the first in the lowest bits: 0, 1, 2 are the counts 1, 2, 3, and 3
  refers to the next byte of
- large: the counts above 3.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from data.compiled import compiled
from data.pixel_map import PixelMap

_SIZES = np.dtype("<u4")
_PLACES = 4096  # non-zero cells that are found before they are coded


def encode(frame: UInt8[ndarray, "c h w"]) -> bytes:
    cells = np.ascontiguousarray(frame).reshape(-1)
    words = cells[: cells.size // 8 * 8].view(np.uint64)
    gaps, codes, large = np.empty_like(cells), np.zeros(-(-cells.size // 4), dtype=np.uint8), np.empty_like(cells)
    num_gaps, num_counts, num_large = _find_gaps(cells, words, gaps, codes, large, _PLACES)
    sizes = np.array([num_gaps, -(-num_counts // 4)], dtype=_SIZES).tobytes()
    return sizes + gaps[:num_gaps].tobytes() + codes[: -(-num_counts // 4)].tobytes() + large[:num_large].tobytes()


def most_bytes(num_cells: int) -> int:
    """That a frame's content can be as long as."""
    return 3 * num_cells + 2 * _SIZES.itemsize


def decode(content: bytes, frame: UInt8[ndarray, "c h w"], pixel_map: PixelMap | None) -> None:
    """Write over `frame`, moved by `pixel_map`. Raises ValueError for what no frame of this size is coded as."""
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
