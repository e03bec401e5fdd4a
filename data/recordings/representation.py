"""Stacked histogram: the event representation of RVT (Gehrig & Scaramuzza, CVPR 2023)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Int64, UInt8, UInt16
from numpy import ndarray

from data.compiled import compiled
from data.recordings.events import Events

_BLOCK = 2048  # events looked at together: their cells stay in the cache


def count_window(events: Events, count_cutoff: int, sensor_hw: tuple[int, int], frame: UInt8[ndarray, "c h w"]) -> None:
    """Count one window's events of a sensor into `frame`, which comes as zeros.

    At the sensor's size each pixel is a cell of its own; at half of it, pixels of odd row and odd column count, as in
    RVT; at any other size each event counts once, in the cell that the middle of its pixel falls into.
    """
    frame_hw = frame.shape[1:]
    x, y, stride = events.x, events.y, 1
    if frame_hw == (sensor_hw[0] // 2, sensor_hw[1] // 2):
        stride = 2
    elif frame_hw != sensor_hw:
        y, x = _cells(sensor_hw[0], frame_hw[0])[y], _cells(sensor_hw[1], frame_hw[1])[x]
    add_stacked_histogram(x, y, events.polarity, events.t_us, count_cutoff, stride, frame)


@lru_cache(maxsize=16)
def _cells(sensor_pixels: int, frame_pixels: int) -> UInt16[ndarray, " n"]:
    """The row or column of a frame that holds the middle of each of a sensor's."""
    return ((2 * np.arange(sensor_pixels) + 1) * frame_pixels // (2 * sensor_pixels)).astype(np.uint16)


def resample_frame(
    source: UInt8[ndarray, "c sensor_h sensor_w"], count_cutoff: int, frame: UInt8[ndarray, "c h w"]
) -> None:
    """Write what `count_window` counts of a window at the size of `frame`, from its frame at the sensor's size.

    Equal to the bit where `source` has the same cut-off: time bins do not depend on the size, each cell of the sensor
    belongs to one cell of `frame` or, at half the size, to one or none, and where a cell had stopped at the cut-off, so
    does the sum that it is a part of.
    """
    sensor_hw, frame_hw = source.shape[1:], frame.shape[1:]
    frame.fill(0)
    if frame_hw == (sensor_hw[0] // 2, sensor_hw[1] // 2):
        frame[:] = source[:, 1::2, 1::2]
        return
    rows, columns = (_cells(sensor, size) for sensor, size in zip(sensor_hw, frame_hw, strict=True))
    _sum_cells(source, rows, columns, count_cutoff, frame)


@compiled
def _sum_cells(source: ndarray, rows: ndarray, columns: ndarray, cutoff: int, frame: ndarray) -> None:
    for channel in range(source.shape[0]):
        for y in range(source.shape[1]):
            line, target = source[channel, y], frame[channel, rows[y]]
            for x in range(line.size):
                if line[x]:
                    target[columns[x]] = min(np.int64(target[columns[x]]) + line[x], cutoff)


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
    the pixels of odd row and odd column, as "nearest-exact" down-sampling does, 1 keeps all. Events must lie on the
    sensor that `frame` is of.
    """
    assert frame.dtype == np.uint8
    assert stride in (1, 2)
    if len(t_us):
        # The loop below does not check its indices. Stride 2 leaves the last pixel of an odd size out
        assert (int(x.max()) + 1) // stride <= frame.shape[2]
        assert (int(y.max()) + 1) // stride <= frame.shape[1]
        assert polarity.max() <= 1
        _count(x, y, polarity, t_us, np.uint8(count_cutoff), stride - 1, frame)


@compiled
def _count(x: ndarray, y: ndarray, polarity: ndarray, t_us: ndarray, cutoff: int, half: int, frame: ndarray) -> None:
    channels, height, width = frame.shape
    bins = channels // 2
    span = max(t_us[-1] - t_us[0], 1)
    counts = frame.reshape(-1)
    cells, kept, kept_cells = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int32)
    # 32 bits throughout, so that a block's cells are computed by vector instructions
    shift, always, step = np.int32(half), np.int32(half ^ 1), np.int32(width)
    polarity_step = np.int32(bins * height * width)
    bin_start = 0
    for time_bin in range(bins):
        # The first time of the next bin, rounded up: events need no division
        next_us = t_us[0] + ((time_bin + 1) * span + bins - 1) // bins
        bin_stop = x.size if time_bin == bins - 1 else np.searchsorted(t_us, next_us)
        first_cell = np.int32(time_bin * height * width)
        for begin in range(bin_start, bin_stop, _BLOCK):
            size = min(_BLOCK, bin_stop - begin)
            columns, rows, signs = x[begin : begin + size], y[begin : begin + size], polarity[begin : begin + size]
            for i in range(size):
                column, row = np.int32(columns[i]), np.int32(rows[i])
                kept[i] = (column & row | always) & np.int32(1)
                cells[i] = np.int32(signs[i]) * polarity_step + first_cell + (row >> shift) * step + (column >> shift)
            num_kept = 0
            for i in range(size):  # without a branch: which pixel an event hits cannot be predicted
                kept_cells[num_kept] = cells[i]
                num_kept += kept[i]
            for cell in kept_cells[:num_kept]:
                counts[cell] += counts[cell] < cutoff
        bin_start = bin_stop
