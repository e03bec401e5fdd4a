"""Stacked histogram: the event representation of RVT (Gehrig & Scaramuzza, CVPR 2023)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, UInt8, UInt16
from numpy import ndarray

from data.compiled import compiled

_BLOCK = 2048  # events looked at together: their cells stay in the cache


def add_stacked_histogram(
    x: UInt16[ndarray, " n"],
    y: UInt16[ndarray, " n"],
    polarity: UInt8[ndarray, " n"],
    t_us: Int64[ndarray, " n"],
    count_cutoff: int,
    stride: int,
    frame: UInt8[ndarray, "c h w"],
) -> None:
    """Count one window's events into `frame`, which comes as zeros: channel = polarity * bins + time bin.

    Times ascend, polarity is 0 or 1. Time bins run from the window's first event to its last, not over the nominal
    window: `(t - first) * bins // max(last - first, 1)`. Counts stop at `count_cutoff` (at most 255). `stride` 2 keeps
    the pixels of odd row and odd column, as "nearest-exact" down-sampling does, 1 keeps all; events outside
    `stride * (h, w)` are left out.
    """
    assert frame.dtype == np.uint8
    assert stride in (1, 2)
    if len(t_us):
        _count(x, y, polarity, t_us, np.uint8(count_cutoff), stride - 1, frame)


@compiled
def _count(x: ndarray, y: ndarray, polarity: ndarray, t_us: ndarray, cutoff: int, half: int, frame: ndarray) -> None:
    channels, height, width = frame.shape
    bins = channels // 2
    span = max(t_us[-1] - t_us[0], 1)
    counts = frame.reshape(-1)
    cells = np.empty(_BLOCK, np.int64)
    bin_start = 0
    for time_bin in range(bins):
        # The first time of the next bin, rounded up: events need no division
        next_us = t_us[0] + ((time_bin + 1) * span + bins - 1) // bins
        bin_stop = x.size if time_bin == bins - 1 else np.searchsorted(t_us, next_us)
        for begin in range(bin_start, bin_stop, _BLOCK):
            num_cells = 0
            for i in range(begin, min(begin + _BLOCK, bin_stop)):
                # No branch: which pixel an event hits cannot be predicted
                column, row = np.int64(x[i]), np.int64(y[i])
                kept = (column & row | (half ^ 1)) & 1
                column, row = column >> half, row >> half
                cells[num_cells] = ((polarity[i] * bins + time_bin) * height + row) * width + column
                num_cells += kept & (column < width) & (row < height)
            for cell in cells[:num_cells]:
                counts[cell] += counts[cell] < cutoff
        bin_start = bin_stop
