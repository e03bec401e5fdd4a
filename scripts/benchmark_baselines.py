"""The usual way of what this project does faster, to measure against: plain tensors, one operation after another."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import torch
from jaxtyping import Integer, UInt8
from numpy import ndarray
from torch import Tensor


def stacked_histogram(
    x: Integer[ndarray, " n"],
    y: Integer[ndarray, " n"],
    polarity: Integer[ndarray, " n"],
    t_us: Integer[ndarray, " n"],
    bins: int,
    count_cutoff: int,
    sensor_hw: tuple[int, int],
) -> UInt8[Tensor, "c h w"]:
    """Cast to tensors, count at full size in 8 bits, cut off, then down-sample by 2 with "nearest-exact"."""
    height, width = sensor_hw
    columns, rows, signs, times = (torch.from_numpy(column.astype(np.int64)) for column in (x, y, polarity, t_us))
    elapsed = (times - times[0]).float() / max(int(times[-1] - times[0]), 1)
    time_bin = (elapsed * bins).floor().clamp(max=bins - 1).long()
    cell = ((signs * bins + time_bin) * height + rows) * width + columns
    counts = torch.zeros(2 * bins * height * width, dtype=torch.uint8)
    counts.put_(cell, torch.ones_like(cell, dtype=torch.uint8), accumulate=True)
    full = counts.clamp(max=count_cutoff).reshape(1, 2 * bins, height, width)
    return torch.nn.functional.interpolate(full, scale_factor=0.5, mode="nearest-exact")[0]


def read_frames(path: Path, start: int, stop: int) -> list[UInt8[Tensor, "c h w"]]:
    """Open RVT's frames file, read a chunk of frames, split it into one tensor a frame."""
    with h5py.File(path, "r") as file:
        return list(torch.from_numpy(file["data"][start:stop]))


def write_frames(path: Path, frames: UInt8[ndarray, "n c h w"]) -> None:
    """RVT's frames file: Blosc-zstd level 1, a frame a chunk."""
    filters = hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=frames, chunks=(1, *frames.shape[1:]), **filters)
