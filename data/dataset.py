"""The map-style data set behind the loaders: a list of chunk reads goes in, one SequenceBatch comes out."""

from __future__ import annotations

import os
import resource
from collections import OrderedDict

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from config.errors import UserError
from config.schema import DatasetConfig
from data.augmentation import Augmentation
from data.batch import SequenceBatch
from data.boxes import cxcywh_from_xywh
from data.copy_paste import CopyPaste
from data.event_augmentation import draw_disturbance
from data.index import SplitIndex
from data.labels import Labels
from data.plan import ChunkRead
from data.sequence import Sequence, move_frames

_MAX_OPEN_SEQUENCES = 1024


class ChunkDataset(Dataset):
    """Reads the rows of a batch straight into the batch's memory.

    A chunk that cannot be read (a damaged file) does not end the run: its frames come out empty, without labels, with
    `is_first` set, so that the lane's hidden state starts anew, and the fault is told in `SequenceBatch.faults`.
    """

    def __init__(self, index: SplitIndex, dataset: DatasetConfig) -> None:
        self._index, self._dataset = index, dataset
        self._frame_chw = (dataset.channels, *dataset.loaded_hw)
        self._random = Augmentation(dataset.data_augmentation.random, dataset.loaded_hw)
        self._stream = Augmentation(dataset.data_augmentation.stream, dataset.loaded_hw)
        self._sequences: OrderedDict[int, Sequence] = OrderedDict()
        self._owner = os.getpid()
        self._copy_paste = CopyPaste(index, self._sequence) if dataset.pastes else None

    def __getitem__(self, index: ChunkRead) -> SequenceBatch:
        return self.__getitems__([index])

    def __getitems__(self, reads: list[ChunkRead]) -> SequenceBatch:
        length, num_rows = self._dataset.sequence_length, len(reads)
        frames = _empty_frames((length, num_rows, *self._frame_chw))
        t_us = np.full((length, num_rows), -1, dtype=np.int64)
        labels, is_first, faults = [], [], []
        for row, read in enumerate(reads):
            out = frames.numpy()[:, row]
            try:
                labels.append(self._read(read, out))
                t_us[: read.stop - read.start, row] = self._sequence(read.sequence).t_us(read.start, read.stop)
                is_first.append(read.is_first)
            except UserError as error:
                out[:] = 0
                labels.append(Labels.none())
                is_first.append(True)
                faults.append(f"{error} (frames {read.start}..{read.stop - 1} of {self._index.path(read.sequence)})")
        return SequenceBatch(
            frames=frames,
            **_merge(labels, num_rows),
            is_first=torch.tensor(is_first),
            lane=torch.tensor([read.row for read in reads]),
            sequence_names=tuple(str(self._index.names[read.sequence]) for read in reads),
            first_frame=torch.tensor([read.start for read in reads]),
            t_us=torch.from_numpy(t_us),
            faults=tuple(faults),
        )

    def _read(self, read: ChunkRead, out: UInt8[ndarray, "l c h w"]) -> Labels:
        """Write a chunk's frames to `out` and give its labels, both augmented."""
        sequence = self._sequence(read.sequence)
        labels = sequence.labels(read.start, read.stop)
        if read.is_random and self._dataset.only_load_end_labels:
            labels = _last_frame_only(labels, read.stop - read.start)
        if read.augmentation_seed is None:
            sequence.frames(read.start, read.stop, out)
            return labels
        present = out[: min(read.stop, len(sequence)) - read.start]
        kind = self._dataset.data_augmentation.random if read.is_random else self._dataset.data_augmentation.stream
        pastes = self._copy_paste.draw(read, kind.copy_paste) if self._copy_paste is not None else []
        if self._copy_paste is not None and pastes:
            sequence.frames(read.start, read.stop, out)
            labels = self._copy_paste.lay(pastes, read, present, labels)
        augmentation = self._random if read.is_random else self._stream
        latest = labels.box_image == labels.box_image.max(initial=-1)  # what RVT zooms in on is in that frame
        move = augmentation.draw(read.augmentation_seed, labels.boxes[latest])
        pixel_map = move.pixel_map()
        if pastes:
            if pixel_map is not None:
                move_frames(present, pixel_map)
        else:
            sequence.frames(read.start, read.stop, out, pixel_map)
        self._disturb(read, present)
        boxes = move.boxes(labels.boxes)
        seen = (boxes[:, 3] > 0) & (boxes[:, 4] > 0)
        moved = Labels(labels.frames, boxes[seen], labels.box_image[seen])
        zooms_in = move.zoom is not None and move.zoom.zoom_in
        keeps_all = not zooms_in or self._dataset.data_augmentation.keep_emptied_frames
        return moved if keeps_all else _without(np.setdiff1d(labels.box_image, moved.box_image), moved)

    def _disturb(self, read: ChunkRead, frames: UInt8[ndarray, "l c h w"]) -> None:
        kinds, dataset = self._dataset.data_augmentation, self._dataset
        config = (kinds.random if read.is_random else kinds.stream).events
        assert read.augmentation_seed is not None
        drawn = draw_disturbance(read.augmentation_seed, config, dataset.representation, dataset.loaded_hw)
        if drawn is not None:
            drawn.apply(frames, read.start)

    def _sequence(self, number: int) -> Sequence:
        """An opened sequence: each process opens its own, once, and keeps the last ones it used."""
        if self._owner != os.getpid():
            self._sequences, self._owner = OrderedDict(), os.getpid()
        if number not in self._sequences:
            self._sequences[number] = Sequence(self._index.path(number), self._dataset)
            if len(self._sequences) > _open_sequences_limit():
                self._sequences.popitem(last=False)[1].close()
        self._sequences.move_to_end(number)
        return self._sequences[number]

    def __getstate__(self) -> dict[str, object]:
        """Open files stay behind where workers are spawned, not forked."""
        return {**self.__dict__, "_sequences": OrderedDict()}


def _open_sequences_limit() -> int:
    """Files a process may keep open, with room left for everything else it opens."""
    return min(_MAX_OPEN_SEQUENCES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)


def _empty_frames(shape: tuple[int, ...]) -> Tensor:
    """Memory for a batch; in a worker it is shared with the main process from the start, so that it is never copied."""
    num_bytes = int(np.prod(shape))
    if get_worker_info() is None:
        return torch.from_numpy(np.empty(shape, dtype=np.uint8))  # numpy asks for huge pages: a tenth of the time
    storage = torch.UntypedStorage._new_shared(num_bytes)
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


def _without(emptied: Int64[ndarray, " k"], labels: Labels) -> Labels:
    """Labels without those labelled frames, which have no boxes; by position."""
    kept = np.setdiff1d(np.arange(len(labels.frames)), emptied)
    return Labels(labels.frames[kept], labels.boxes, np.searchsorted(kept, labels.box_image))


def _last_frame_only(labels: Labels, length: int) -> Labels:
    last = labels.frames == length - 1
    return Labels(
        labels.frames[last],
        boxes := labels.boxes[last[labels.box_image]],
        np.zeros(len(boxes), dtype=np.int64),
    )


def _merge(labels: list[Labels], num_rows: int) -> dict[str, Tensor]:
    """All rows' labels in the order of the batch's frames, l * num_rows + row."""
    frames = np.concatenate([part.frames * num_rows + row for row, part in enumerate(labels)])
    order = np.argsort(frames)
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    first = np.cumsum([0, *(len(part.frames) for part in labels)])
    box_image = position[np.concatenate([part.box_image + begin for part, begin in zip(labels, first, strict=False)])]
    boxes = np.concatenate([part.boxes for part in labels])
    boxes[:, 1:] = cxcywh_from_xywh(boxes[:, 1:])
    by_image = np.argsort(box_image, kind="stable")
    return {
        "labelled_frames": torch.from_numpy(frames[order]),
        "boxes": torch.from_numpy(boxes[by_image]),
        "box_image": torch.from_numpy(box_image[by_image]),
    }
