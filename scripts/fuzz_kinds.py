"""What `scripts/fuzz.py` damages: for each kind of file sound ones, how they are read, and what was read, as a digest.

A new kind is one function that writes its files into an empty folder and returns a `Target`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy import ndarray

from config.loading import load_dataset_config
from config.schema import DatasetConfig
from data.frame_store import write_frame_store
from data.index import load_index
from data.layout import BOXES_KEY, FIRST_BOX_KEY, FRAMES_KEY, SequenceLayout
from data.sequence import Sequence
from scripts.fuzz_recordings import write_recordings

_SIZE_HW = (48, 64)
_NUM_FRAMES = 12
Places = tuple[tuple[int, int], ...]  # begin and end of stretches of bytes


@dataclass(frozen=True)
class Target:
    """Files of which one at a time is damaged, in certain places, and the function that reads them all."""

    places: dict[Path, Places]
    read: Callable[[], bytes]  # a digest of all that a caller would get; raises UserError


def frames(folder: Path) -> Target:
    """Frames files as RVT writes them and as we do: all bytes that are not of a frame."""
    folders = [_write_sequence(folder / name, has_checksums=name == "ours") for name in ("reference", "ours")]
    dataset = _dataset(folder)
    paths = [SequenceLayout.of(path, dataset).frames for path in folders]
    return Target({path: _outside_of_chunks(path) for path in paths}, lambda: _frames_digest(folders, dataset))


def compact(folder: Path) -> Target:
    """The compact store, all of it."""
    path, dataset = _write_sequence(folder / "sequence"), _dataset(folder)
    layout = SequenceLayout.of(path, dataset)
    write_frame_store(layout.compact_frames, _frames(), (dataset.channels, *_SIZE_HW))
    return Target({layout.compact_frames: _whole(layout.compact_frames)}, lambda: _frames_digest([path], dataset))


def npz(folder: Path) -> Target:
    """Labels, times and index maps of a sequence."""
    path, dataset = _write_sequence(folder / "train" / "sequence"), _dataset(folder)
    layout = SequenceLayout.of(path, dataset)

    def read() -> bytes:
        for cache in (folder / "train").glob(".index_*"):
            cache.unlink()
        return _index_digest(dataset) + _labels_digest(path, dataset)

    files = (layout.boxes, layout.label_times, layout.frame_times, layout.label_frames)
    return Target({file: _whole(file) for file in files}, read)


def index(folder: Path) -> Target:
    """The index of a split."""
    _write_sequence(folder / "train" / "a")
    _write_sequence(folder / "train" / "b")
    dataset = _dataset(folder)
    load_index(dataset, "train")
    (path,) = (folder / "train").glob(".index_*.npz")
    return Target({path: _whole(path)}, lambda: _index_digest(dataset))


def config(folder: Path) -> Target:
    """A data set's YAML file."""
    path = folder / "dataset" / "mine.yaml"
    path.parent.mkdir()
    path.write_text("defaults:\n  - gen1\n  - _self_\nname: mine\nresolution_hw: [48, 64]\nsequence_length: 7\n")

    def read() -> bytes:
        found = load_dataset_config([f"--config-dir={folder}", "dataset=mine"])
        return b"" if found.name else b"no name"  # other values are other settings, and are the user's

    return Target({path: _whole(path)}, read)


def recordings(folder: Path) -> Target:
    """Recordings of others."""
    readers = write_recordings(folder)
    return Target({path: _whole(path) for path in readers}, lambda: b"".join(read() for read in readers.values()))


def checkpoint(folder: Path) -> Target:
    """A checkpoint, all of it."""
    from scripts.fuzz_checkpoint import write_checkpoint  # here: the other kinds do without torch

    path, read = write_checkpoint(folder)
    return Target({path: _whole(path)}, read)


KINDS: dict[str, Callable[[Path], Target]] = {
    "frames": frames,
    "compact": compact,
    "npz": npz,
    "index": index,
    "config": config,
    "recordings": recordings,
    "checkpoint": checkpoint,
}


def _dataset(path: Path) -> DatasetConfig:
    size = f"dataset.resolution_hw=[{_SIZE_HW[0]},{_SIZE_HW[1]}]"
    return load_dataset_config(["dataset=gen1", f"dataset.path={path}", size])


def _frames() -> ndarray:
    random = np.random.default_rng(0)
    counts = random.integers(1, 10, (_NUM_FRAMES, 20, *_SIZE_HW), dtype=np.uint8)
    return counts * (random.random(counts.shape) < 0.05)


def _write_sequence(folder: Path, *, has_checksums: bool = False) -> Path:
    layout = SequenceLayout.of(folder, _dataset(folder))
    layout.representation.mkdir(parents=True)
    layout.boxes.parent.mkdir()
    t_us = 100_000 + 50_000 * np.arange(_NUM_FRAMES)
    labelled = np.arange(1, _NUM_FRAMES, 2)
    boxes = np.zeros(2 * len(labelled), [("t", "<i8"), *((name, "<f4") for name in "xywh"), ("class_id", "<u4")])
    boxes["t"] = np.repeat(t_us[labelled], 2)
    for name, least in {"x": 1, "y": 2, "w": 10, "h": 12}.items():
        boxes[name] = least + np.arange(len(boxes))
    boxes["class_id"] = np.arange(len(boxes)) % 2
    arrays: dict[str, Any] = {BOXES_KEY: boxes, FIRST_BOX_KEY: 2 * np.arange(len(labelled))}
    np.savez(layout.boxes, **arrays)
    np.save(layout.label_times, t_us[labelled])
    np.save(layout.frame_times, t_us)
    np.save(layout.label_frames, labelled)
    with h5py.File(layout.frames, "w") as file:
        content = _frames()
        file.create_dataset(
            FRAMES_KEY,
            data=content,
            maxshape=(None, *content.shape[1:]),
            chunks=(1, *content.shape[1:]),
            fletcher32=has_checksums,
            **hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE),
        )
    return folder


def _whole(path: Path) -> Places:
    return ((0, path.stat().st_size),)


def _outside_of_chunks(path: Path) -> Places:
    with h5py.File(path, "r") as file:
        data = file[FRAMES_KEY].id
        chunks = sorted((data.get_chunk_info(i).byte_offset, data.get_chunk_info(i).size) for i in range(_NUM_FRAMES))
    begins = [0, *(begin + size for begin, size in chunks)]
    ends = [*(begin for begin, _ in chunks), path.stat().st_size]
    return tuple(pair for pair in zip(begins, ends, strict=True) if pair[0] < pair[1])


def _frames_digest(folders: list[Path], dataset: DatasetConfig) -> bytes:
    digest = hashlib.sha256()
    for folder in folders:
        sequence = Sequence(folder, dataset)
        try:
            shape = (1, dataset.channels, *dataset.loaded_hw)
            for number in range(_NUM_FRAMES):
                digest.update(sequence.frames(number, number + 1, np.empty(shape, np.uint8)).tobytes())
        finally:
            sequence.close()
    return digest.digest()


def _labels_digest(folder: Path, dataset: DatasetConfig) -> bytes:
    sequence = Sequence(folder, dataset)
    labels = sequence.labels(0, _NUM_FRAMES)
    t_us = sequence.t_us(0, _NUM_FRAMES)[labels.frames]  # those of other frames stand in no second place
    arrays = (labels.frames, labels.boxes, labels.box_image, t_us)
    return b"".join(array.tobytes() for array in arrays)


def _index_digest(dataset: DatasetConfig) -> bytes:
    found = load_index(dataset, "train")
    arrays = (found.num_frames, found.first_label, found.label_frame, found.class_counts, found.unknown_ids)
    return b"".join(os.fsencode(str(array.shape)) + array.tobytes() for array in (*arrays, found.left_out))
