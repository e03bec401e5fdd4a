"""The plain way of data: tensor operations one after another, files opened for each chunk, lists of frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Integer, UInt8
from numpy import ndarray
from torch import Tensor

from config.schema import DatasetConfig
from data.augmentation import Augmentation, Move, window_size
from data.index import SplitIndex
from data.labels import read_labels
from data.layout import FRAMES_KEY, SequenceLayout
from data.plan import ChunkRead

NEAREST = {"mode": "nearest-exact"}


def stacked_histogram(
    x: Integer[ndarray, " n"],
    y: Integer[ndarray, " n"],
    polarity: Integer[ndarray, " n"],
    t_us: Integer[ndarray, " n"],
    bins: int,
    count_cutoff: int,
    sensor_hw: tuple[int, int],
) -> UInt8[Tensor, "c h w"]:
    """Cast to tensors, count at full size in 8 bits, cut off, then down-sample by 2."""
    height, width = sensor_hw
    columns, rows, signs, times = (torch.from_numpy(column.astype(np.int64)) for column in (x, y, polarity, t_us))
    elapsed = (times - times[0]).float() / max(int(times[-1] - times[0]), 1)
    time_bin = (elapsed * bins).floor().clamp(max=bins - 1).long()
    cell = ((signs * bins + time_bin) * height + rows) * width + columns
    counts = torch.zeros(2 * bins * height * width, dtype=torch.uint8)
    counts.put_(cell, torch.ones_like(cell, dtype=torch.uint8), accumulate=True)
    full = counts.clamp(max=count_cutoff).reshape(1, 2 * bins, height, width)
    return F.interpolate(full, scale_factor=0.5, **NEAREST)[0]


def preprocess(events: Path, out: Path, dataset: DatasetConfig, end_us: list[int]) -> None:
    """Events of each window out of the file, their histogram into another, a frame a chunk (Blosc-zstd level 1)."""
    window_us, frame_chw = dataset.representation.window_ms * 1000, (dataset.channels, *dataset.loaded_hw)
    filters = hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE)
    with h5py.File(events, "r") as source, h5py.File(out, "w") as target:
        columns = [source["events"][name] for name in "xypt"]
        t_us = columns[3][:]
        data = target.create_dataset(
            "data", (0, *frame_chw), np.uint8, maxshape=(None, *frame_chw), chunks=(1, *frame_chw), **filters
        )
        for end in end_us:
            part = slice(np.searchsorted(t_us, end - window_us), np.searchsorted(t_us, end, side="right"))
            x, y, polarity, t = (column[part] for column in columns)
            representation = dataset.representation
            frame = stacked_histogram(
                x, y, polarity, t, representation.bins, representation.count_cutoff, dataset.resolution_hw
            )
            data.resize(len(data) + 1, axis=0)
            data[-1] = frame.numpy()


def batches(
    index: SplitIndex, dataset: DatasetConfig, reads_of_steps: list[list[ChunkRead]]
) -> Iterator[list[UInt8[Tensor, "b c h w"]]]:
    """What a loader does for the same reads: each chunk a list of frames, the batch a list of stacks."""
    for reads in reads_of_steps:
        chunks = [read_chunk(index, dataset, read) for read in reads]
        yield [torch.stack([chunk[step] for chunk, _ in chunks]) for step in range(dataset.sequence_length)]


def read_chunk(
    index: SplitIndex, dataset: DatasetConfig, read: ChunkRead
) -> tuple[list[UInt8[Tensor, "c h w"]], Float32[ndarray, "n 5"]]:
    """Frames and boxes of a chunk, moved one frame after another by the same draw as ours."""
    sequence = index.path(read.sequence)
    path = SequenceLayout.of(sequence, dataset).frames
    with h5py.File(path, "r", locking=False) as file:
        frames = list(torch.from_numpy(file[FRAMES_KEY][read.start : read.stop]))
    frames += [torch.zeros_like(frames[0])] * (dataset.sequence_length - len(frames))
    labels = read_labels(sequence, dataset)
    first, last = np.searchsorted(labels.frames, (read.start, read.stop))
    boxes = labels.boxes[(labels.box_image >= first) & (labels.box_image < last)]
    kinds = dataset.data_augmentation
    augmentation = Augmentation(kinds.random if read.is_random else kinds.stream, dataset.loaded_hw)
    assert read.augmentation_seed is not None, "a training's reads"
    move = augmentation.draw(read.augmentation_seed, boxes)
    return [move_frame(frame, move) for frame in frames], move.boxes(boxes)


def move_frame(frame: UInt8[Tensor, "c h w"], move: Move) -> UInt8[Tensor, "c h w"]:
    """Flip, then zoom."""
    if move.hflip:
        frame = frame.flip(-1)
    if move.zoom is None:
        return frame
    (height, width), zoom = window_size(move.frame_hw, move.zoom.factor), move.zoom
    window = np.s_[:, zoom.y0 : zoom.y0 + height, zoom.x0 : zoom.x0 + width]
    if zoom.zoom_in:
        return F.interpolate(frame[window][None], size=move.frame_hw, **NEAREST)[0]
    canvas = torch.zeros_like(frame)
    canvas[window] = F.interpolate(frame[None], size=(height, width), **NEAREST)[0]
    return canvas
