"""Every frame of a sequence, in all files that hold it: what is damaged, differs or is empty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.errors import UserError
from config.schema import DatasetConfig
from data.checks.sequence import EMPTY_REMEDY, Fault
from data.frame_store import FrameStore
from data.labels import read_labels
from data.layout import DELETE_AND_PREPROCESS, SequenceLayout
from data.sequence import FrameReader, Hdf5Frames

_NAMED = 5  # damaged frames


@dataclass(frozen=True)
class FramesFound:
    """What `check_all_frames` saw of one sequence."""

    faults: list[Fault]
    num_read: int


def check_all_frames(dataset: DatasetConfig, folder: Path, on_frame: Callable[[], None] = lambda: None) -> FramesFound:
    """Read all frames of the sequence, from both of its files where it has both, and compare them."""
    layout = SequenceLayout.of(folder, dataset)
    faults: list[Fault] = []
    readers: list[FrameReader] = []
    try:
        for path, reader in ((layout.frames, Hdf5Frames), (layout.compact_frames, FrameStore)):
            if path.is_file():
                readers.append(reader(path))
        num_read = _read_all(dataset, layout, readers, faults, on_frame) if readers else 0
    except UserError as error:
        what, _, remedy = str(error).partition(". ")
        return FramesFound([*faults, Fault(folder, what.removeprefix(f"{folder}/"), remedy)], 0)
    finally:
        for reader in readers:
            reader.close()
    return FramesFound(faults, num_read)


def _read_all(
    dataset: DatasetConfig,
    layout: SequenceLayout,
    readers: list[FrameReader],
    faults: list[Fault],
    on_frame: Callable[[], None],
) -> int:
    length = max(map(len, readers))
    if len({(len(reader), reader.frame_chw) for reader in readers}) > 1:
        what = f"{len(readers[1])} frames of {readers[1].frame_chw}, {readers[0].path.name} has {length}"
        faults.append(Fault(readers[1].path, what, "Delete it and run scripts/compact_frames.py"))
        readers = readers[:1]
        length = len(readers[0])
    buffers = [np.empty((1, *reader.frame_chw), np.uint8) for reader in readers]
    damaged: dict[Path, list[int]] = {reader.path: [] for reader in readers}
    unequal, empty = [], np.zeros(length, bool)
    for index in range(length):
        sound = []
        for reader, buffer in zip(readers, buffers, strict=True):
            try:
                reader.read(index, index + 1, buffer)
                sound.append(buffer)
            except UserError:
                damaged[reader.path].append(index)
        empty[index] = bool(sound) and not sound[0].any()
        if len(sound) == 2 and not np.array_equal(sound[0], sound[1]):
            unequal.append(index)
        on_frame()
    for path, frames in damaged.items():
        if frames:
            remedy = DELETE_AND_PREPROCESS.format(layout.folder)
            if path == layout.compact_frames and layout.frames.is_file():
                remedy = "Delete it and run scripts/compact_frames.py"
            faults.append(Fault(path, f"{_listed(frames)} of {length} damaged", remedy, skippable=len(frames) == 1))
    if unequal:
        what = f"{_listed(unequal)} of {length} differ from {layout.frames.name}"
        faults.append(Fault(layout.compact_frames, what, "Delete it and run scripts/compact_frames.py"))
    labelled = read_labels(layout.folder, dataset).frames
    if empty[labelled].sum() > len(labelled) / 2:
        what = f"{empty[labelled].sum()} of {len(labelled)} labelled frames hold no event"
        faults.append(Fault(readers[0].path, what, EMPTY_REMEDY))
    return length


def _listed(frames: list[int]) -> str:
    more = f" and {len(frames) - _NAMED} more" if len(frames) > _NAMED else ""
    return f"frames {', '.join(map(str, frames[:_NAMED]))}{more}"
