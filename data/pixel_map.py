"""Where the pixels of an augmented frame come from, and moving them there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from data.compiled import compiled

EMPTY = -1  # nothing of the source lands here


@dataclass(frozen=True)
class PixelMap:
    """Nearest-neighbour flip and zoom. Both arrays rise or fall all along, apart from `EMPTY` at their ends."""

    rows: Int64[ndarray, " h"]
    columns: Int64[ndarray, " w"]

    @cached_property
    def row_targets(self) -> tuple[Int64[ndarray, " h"], Int64[ndarray, " h"]]:
        """First target row of each source row, and how many follow one another; 0 where it is left out."""
        return _targets(self.rows)

    @cached_property
    def column_targets(self) -> tuple[Int64[ndarray, " w"], Int64[ndarray, " w"]]:
        """First target column of each source column, and how many follow one another; 0 where it is left out."""
        return _targets(self.columns)

    def gather(self, source: UInt8[ndarray, "c h w"], target: UInt8[ndarray, "c h w"]) -> None:
        """Write the moved frame to `target`."""
        _gather(source, self.rows, self.columns, target)


@dataclass(frozen=True)
class FreePixelMap:
    """Any move of pixels: the flat source pixel of each pixel."""

    pixels: Int64[ndarray, "h w"]

    def gather(self, source: UInt8[ndarray, "c h w"], target: UInt8[ndarray, "c h w"]) -> None:
        """Write the moved frame to `target`."""
        _gather_pixels(source.reshape(len(source), -1), self.pixels.reshape(-1), target.reshape(len(target), -1))


def _targets(sources: Int64[ndarray, " n"]) -> tuple[Int64[ndarray, " n"], Int64[ndarray, " n"]]:
    target = np.flatnonzero(sources != EMPTY)
    first = np.zeros_like(sources)
    first[sources[target[::-1]]] = target[::-1]  # of equal indices the last write stays
    return first, np.bincount(sources[target], minlength=len(sources))


@compiled
def _gather(source: ndarray, rows: ndarray, columns: ndarray, target: ndarray) -> None:
    channels, height, width = target.shape
    for c in range(channels):
        for y in range(height):
            if rows[y] < 0:
                target[c, y] = 0
                continue
            line = source[c, rows[y]]
            for x in range(width):
                target[c, y, x] = line[columns[x]] if columns[x] >= 0 else 0


@compiled
def _gather_pixels(source: ndarray, pixels: ndarray, target: ndarray) -> None:
    for c in range(target.shape[0]):
        for i in range(target.shape[1]):
            target[c, i] = source[c, pixels[i]] if pixels[i] >= 0 else 0
