"""The index of a split: what its sequences hold, in one file, so that a start need not open every folder.

The index is kept beside the data (or, where that is read-only, in the user's cache folder) and checked by size and time
of each sequence's files; only sequences that changed are read again.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8, UInt16
from numpy import ndarray

from config.errors import UserError
from config.schema import DatasetConfig
from data.arrays import read_npz
from data.labels import read_frame_times, read_labels
from data.layout import PREPROCESS_AGAIN, RESTORE_LINK, SequenceLayout, is_dangling, may_be_sequence

_THREADS = 16  # stat and open wait for the file system, not for the processor
_VERSION = 5
_BLOCK = 2**16  # chunks
_DIGEST = "digest"


@dataclass(frozen=True)
class SplitIndex:
    """The sequences of one split, sorted by name, and their labelled frames back to back."""

    split: Path
    names: ndarray  # [s] str
    fingerprint: Int64[ndarray, "s f"]  # sizes and times of a sequence's files
    num_frames: Int64[ndarray, " s"]
    first_label: Int64[ndarray, " s_and_one"]  # where a sequence's labelled frames begin
    label_frame: Int64[ndarray, " k"]  # frame index of each labelled frame
    class_counts: UInt16[ndarray, "k c"]  # boxes per class, as loaded
    unknown_ids: Int64[ndarray, " s"]  # boxes per sequence whose class id is not in the data set's list
    left_out: Int64[ndarray, "s 2"]  # boxes per sequence that are not finite; that are flat or outside the frame
    largest_id: Int64[ndarray, " s"]  # of the class ids in a sequence's label file

    def __len__(self) -> int:
        return len(self.names)

    @property
    def digest(self) -> str:
        """Of everything that it holds, with the sizes and times of the files that it tells of."""
        return _digest(self).tobytes().hex()

    def path(self, sequence: int | np.integer) -> Path:
        return self.split / str(self.names[sequence])

    @property
    def label_sequence(self) -> Int64[ndarray, " k"]:
        """The sequence of each labelled frame."""
        return np.repeat(np.arange(len(self)), np.diff(self.first_label))

    def only(self, names: Sequence[str]) -> SplitIndex:
        """Of these sequences alone. Raises UserError for a name that the split does not have."""
        for name in names:
            if name not in self.names:
                known = self.names.tolist()
                near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[:3]
                raise UserError(f"dataset.only: {self.split} has no sequence {name}. It has: {', '.join(near)}, ...")
        chosen = np.isin(self.names, list(names))
        labels = chosen[self.label_sequence]
        counts = np.diff(self.first_label)[chosen]
        return SplitIndex(
            self.split,
            self.names[chosen],
            self.fingerprint[chosen],
            self.num_frames[chosen],
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            self.label_frame[labels],
            self.class_counts[labels],
            self.unknown_ids[chosen],
            self.left_out[chosen],
            self.largest_id[chosen],
        )

    def training_streams(self, length: int) -> Int64[ndarray, "r 3"]:
        """Rows (sequence, start, stop): sequences, cut wherever no label occurs for more than `length` frames.

        Each begins length - 1 frames before its first label (or where the sequence begins) and ends with its last.
        """
        sequence, frame = self.label_sequence, self.label_frame
        if len(frame) == 0:
            return np.zeros((0, 3), dtype=np.int64)
        cut = (np.diff(sequence) != 0) | (np.diff(frame) > length)
        first, last = np.append(True, cut), np.append(cut, True)
        start = np.maximum(frame[first] - length + 1, 0)
        return np.stack([sequence[first], start, frame[last] + 1], axis=1)

    def evaluation_streams(self, length: int) -> Int64[ndarray, "r 3"]:
        """Rows (sequence, start, stop): labelled sequences from length - 1 frames before the first label to the end."""
        labelled = np.flatnonzero(np.diff(self.first_label))
        first = self.label_frame[self.first_label[labelled]]
        return np.stack([labelled, np.maximum(first - length + 1, 0), self.num_frames[labelled]], axis=1)

    def random_chunks(self, length: int) -> Int64[ndarray, "c 2"]:
        """Rows (sequence, start): one chunk per labelled frame, which is its last; too early frames are left out."""
        whole = self.label_frame >= length - 1
        return np.stack([self.label_sequence[whole], self.label_frame[whole] - length + 1], axis=1)

    def stream_repeats(self, streams: Int64[ndarray, "r 3"], threshold: float) -> Float64[ndarray, " r"]:
        """How often an epoch reads each stream, by the rarest class in it (LVIS, arXiv:1908.03195, appendix).

        A class that a share f of the streams has asks for max(1, sqrt(threshold / f)) times.
        """
        present = self._boxes_within(streams[:, 0], streams[:, 1], streams[:, 2]) > 0  # [r, c]
        share = present.mean(axis=0)
        of_class = np.sqrt(np.maximum(threshold / np.where(share > 0, share, np.inf), 1))
        return np.where(present, of_class, 1).max(axis=1)

    def chunk_weights(self, chunks: Int64[ndarray, "c 2"], length: int) -> Float64[ndarray, " c"]:
        """Weight of each chunk: the sum over its boxes of 1 / (boxes of that class in all chunks)."""
        counts = self._boxes_within(chunks[:, 0], chunks[:, 1], chunks[:, 1] + length)
        in_all = np.maximum(counts.sum(axis=0), 1)
        blocks = (counts[i : i + _BLOCK] for i in range(0, len(counts), _BLOCK))  # else a second array of that size
        return np.concatenate([*((block / in_all).sum(axis=1) for block in blocks), np.zeros(0)])

    def _boxes_within(
        self, sequence: Int64[ndarray, " n"], start: Int64[ndarray, " n"], stop: Int64[ndarray, " n"]
    ) -> Int64[ndarray, "n c"]:
        """Boxes per class in frames start..stop-1 of a sequence."""
        key = self.label_sequence * (1 << 40) + self.label_frame
        begin = sequence * (1 << 40)
        total = np.zeros((len(key) + 1, self.class_counts.shape[1]), dtype=np.int64)
        np.cumsum(self.class_counts, axis=0, dtype=np.int64, out=total[1:])
        return total[np.searchsorted(key, begin + stop)] - total[np.searchsorted(key, begin + start)]


def load_index(dataset: DatasetConfig, split: str) -> SplitIndex:
    """The index of `dataset.path / split`: from its file where that still fits, else built and written.

    Raises UserError where the split is missing or empty, or a sequence's labels cannot be read.
    """
    folder = dataset.path / split
    if not folder.is_dir():
        raise UserError(f"{folder} not found. Check dataset.path, or make the data set with scripts/preprocess.py")
    names = sorted(entry.name for entry in os.scandir(folder) if may_be_sequence(Path(entry)))
    if not names:
        raise UserError(f"{folder} has no sequences. Check dataset.path, or run scripts/preprocess.py")
    with ThreadPoolExecutor(_THREADS) as pool:
        fingerprint = np.array(list(pool.map(lambda name: _fingerprint(folder / name, dataset), names, chunksize=16)))
        cached = next(filter(None, (_read(path, folder) for path in _places(folder, dataset))), None)
        if cached is not None and list(cached.names) == names and np.array_equal(cached.fingerprint, fingerprint):
            return cached
        known = _known(cached)
        entries = list(
            pool.map(
                lambda i: known.get((names[i], fingerprint[i].tobytes())) or _entry(folder / names[i], dataset),
                range(len(names)),
                chunksize=16,
            )
        )
    index = _assemble(folder, names, fingerprint, entries)
    _write(index, dataset)
    return index


def written_index(dataset: DatasetConfig, split: str, digest: str) -> SplitIndex | None:
    """The index that another process has loaded, and checked against the sequences, from its file; None without one."""
    folder = dataset.path / split
    found = filter(None, (_read(path, folder) for path in _places(folder, dataset)))
    return next((index for index in found if index.digest == digest), None)


# frames, label frames, class counts, unknown ids, left out, largest id
_Entry = tuple[int, ndarray, ndarray, int, tuple[int, int], int]


def _entry(path: Path, dataset: DatasetConfig) -> _Entry:
    labels = read_labels(path, dataset)
    num_frames = len(read_frame_times(SequenceLayout.of(path, dataset)))
    class_id = labels.boxes[:, 0].astype(np.int64)
    known = (class_id >= 0) & (class_id < dataset.num_classes)
    cell = labels.box_image[known] * dataset.num_classes + class_id[known]
    counts = np.bincount(cell, minlength=len(labels.frames) * dataset.num_classes)
    class_counts = counts.reshape(-1, dataset.num_classes).astype(np.uint16)
    return num_frames, labels.frames, class_counts, int((~known).sum()), labels.left_out, labels.largest_id


def _assemble(folder: Path, names: list[str], fingerprint: ndarray, entries: list[_Entry]) -> SplitIndex:
    num_frames, label_frames, class_counts, unknown_ids, left_out, largest_id = zip(*entries, strict=True)
    return SplitIndex(
        split=folder,
        names=np.array(names),
        fingerprint=fingerprint,
        num_frames=np.array(num_frames, dtype=np.int64),
        first_label=np.concatenate([[0], np.cumsum([len(frames) for frames in label_frames])]).astype(np.int64),
        label_frame=np.concatenate(label_frames),
        class_counts=np.concatenate(class_counts),
        unknown_ids=np.array(unknown_ids, dtype=np.int64),
        left_out=np.array(left_out, dtype=np.int64),
        largest_id=np.array(largest_id, dtype=np.int64),
    )


def _known(index: SplitIndex | None) -> dict[tuple[str, bytes], _Entry]:
    """The entries of an index by name and fingerprint."""
    if index is None:
        return {}
    parts = [slice(*pair) for pair in zip(index.first_label[:-1], index.first_label[1:], strict=True)]
    return {
        (str(name), index.fingerprint[i].tobytes()): (
            int(index.num_frames[i]),
            index.label_frame[parts[i]],
            index.class_counts[parts[i]],
            int(index.unknown_ids[i]),
            tuple(index.left_out[i].tolist()),
            int(index.largest_id[i]),
        )
        for i, name in enumerate(index.names)
    }


def _fingerprint(path: Path, dataset: DatasetConfig) -> list[int]:
    """Sizes and modification times of the files that the index tells of."""
    layout = SequenceLayout.of(path, dataset)
    try:
        stats = [file.stat() for file in (layout.boxes, layout.label_frames, layout.frame_times)]
        times = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
        times.append(_size_and_time_if_there(layout.label_times))
        return [value for pair in times for value in pair]
    except OSError as error:
        if is_dangling(path):
            raise UserError(f"{path} is a link to what is not there. {RESTORE_LINK}") from error
        raise UserError(f"{error.filename} is missing. {PREPROCESS_AGAIN}, or check dataset.ev_repr_name") from error


def _size_and_time_if_there(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _places(folder: Path, dataset: DatasetConfig) -> tuple[Path, Path]:
    """Files that may hold the index: beside the data, and in the user's cache folder."""
    size = dataset.loaded_hw if dataset.stride is None else dataset.stride == 2
    settings: tuple[Any, ...]
    settings = (_VERSION, dataset.ev_repr_name, dataset.classes, dataset.resolution_hw, size)
    if dataset.stored_classes is not None:
        settings = (*settings, dataset.stored_classes, dataset.class_of_label)
    key = hashlib.sha256(repr(settings).encode()).hexdigest()[:16]
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamrvt"
    return folder / f".index_{key}.npz", cache / f"index_{place}_{key}.npz"


def _read(path: Path, folder: Path) -> SplitIndex | None:
    names = [field.name for field in fields(SplitIndex)[1:]]
    try:
        *arrays, digest = read_npz(path, [*names, _DIGEST], "")
    except UserError:
        return None  # no index, or a damaged one: it is made anew
    index = SplitIndex(folder, *arrays)
    return index if np.array_equal(digest, _digest(index)) else None


def _digest(index: SplitIndex) -> UInt8[ndarray, "32"]:
    """Of all arrays: what is derived is believed only as it was written."""
    digest = hashlib.sha256()
    for field in fields(index)[1:]:
        array = getattr(index, field.name)
        digest.update(f"{field.name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _write(index: SplitIndex, dataset: DatasetConfig) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {field.name: getattr(index, field.name) for field in fields(index)[1:]}
    arrays[_DIGEST] = _digest(index)
    np.savez(buffer, **arrays)
    for path in _places(index.split, dataset):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
            with os.fdopen(handle, "wb") as file:
                file.write(buffer.getbuffer())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
            return
        except OSError:
            continue  # a read-only data set
    warnings.warn(f"the index of {index.split} could not be written; every start reads all its labels", stacklevel=2)
