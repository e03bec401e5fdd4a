"""Check a data set before it costs a night: all its labels, samples of its frames."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from config.errors import UserError
from config.schema import DatasetConfig
from data.checks.sequence import Fault, SequenceFacts, check_sequence
from data.layout import CHECK_LABELS, SPLITS, may_be_sequence

_BLOSC_FILTER = 32001
_SAMPLES_PER_SEQUENCE = 3
_SAMPLED_SEQUENCES = 200  # of a split; frames of the others are not read
SAMPLED = (
    f"a sample was read ({_SAMPLES_PER_SEQUENCE} and some labelled ones a sequence, of at most {_SAMPLED_SEQUENCES} "
    "sequences a split)"
)
_QUICK_SEQUENCES = 8  # what a start of training looks at, spread over the split
_THREADS = 8
_NO_SEQUENCE = "a folder without labels_v2 and event_representations_v2: no sequence"
_OLDER_LABELS = "{} sequences are of an older version, whose labelled frames are RVT's on an even label clock only"
_OLDER_REMEDY = "scripts/preprocess.py with the same IN and OUT tells which differ, and what to delete"
_FAULTS_SHOWN = 10


@dataclass(frozen=True)
class SplitSummary:
    """Totals over the checked sequences of a split."""

    split: str
    num_sequences: int
    num_frames: int
    num_labelled_frames: int
    boxes: Int64[ndarray, "classes 3"]  # by class and size: small, medium, large
    label_interval_ms: float  # median
    longest_label_gap_ms: float
    counts_per_frame: float  # mean of the sampled frames' sums: counts are cut off, and pixels are as loaded


@dataclass(frozen=True)
class DatasetReport:
    splits: list[SplitSummary]
    faults: list[Fault]

    @property
    def blocking(self) -> list[Fault]:
        """The faults that training would suffer from."""
        return [fault for fault in self.faults if fault.blocks_training]


def check_dataset(dataset: DatasetConfig, *, thorough: bool, splits: tuple[str, ...] = SPLITS) -> DatasetReport:
    """Look for everything that would block a training on the data set; never raises for a fault of the data.

    Args:
        thorough: every sequence's labels and files. Otherwise a few sequences of each split, in a second or two.
        splits: an absent `test` split is worth knowing, an absent other one is a fault.
    """
    faults = list(_check_filter())
    summaries = []
    for split in splits:
        folder = dataset.path / split
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        names = [entry.name for entry in entries if may_be_sequence(entry)]
        faults += [
            Fault(entry, _NO_SEQUENCE, "Training leaves it out", blocks_training=False)
            for entry in entries
            if entry.is_dir() and entry.name not in names and not entry.name.startswith(".")
        ]
        if not names:
            remedy = "Check dataset.path, or make it with scripts/preprocess.py"
            what = "no sequences" if folder.is_dir() else "not found"
            faults.append(Fault(folder, what, remedy, blocks_training=split != "test"))
            continue
        facts = _check_split([folder / name for name in names], dataset, thorough)
        faults += [fault for sequence in facts for fault in sequence.faults]
        if older := sum(sequence.has_older_labels for sequence in facts):
            faults.append(Fault(folder, _OLDER_LABELS.format(older), _OLDER_REMEDY, blocks_training=False))
        summaries.append(_summary(split, facts, dataset))
        if summaries[-1].num_labelled_frames == 0:
            faults.append(Fault(folder, "no labelled frame", CHECK_LABELS))
    return DatasetReport(summaries, faults)


def require_usable(
    dataset: DatasetConfig, splits: tuple[str, ...] = ("train", "val"), *, max_damaged_chunks: int = 0
) -> None:
    """The quick check before a start. Raises UserError with all faults that training would suffer from.

    Up to `max_damaged_chunks` frames may be damaged if nothing else is wrong: a warning names them.
    """
    blocking = check_dataset(dataset, thorough=False, splits=splits).blocking
    if all(fault.skippable for fault in blocking) and len(blocking) <= max_damaged_chunks:
        for fault in blocking:
            warnings.warn(f"{fault}. Until then its chunk is left out", stacklevel=2)
        return
    faults = "\n".join(f"  {fault}" for fault in blocking[:_FAULTS_SHOWN])
    raise UserError(
        f"{dataset.path} has {len(blocking)} faults that training would suffer from:\n{faults}\n"
        "scripts/check_dataset.py looks at all of it"
    )


def _check_filter() -> list[Fault]:
    if h5py.h5z.filter_avail(_BLOSC_FILTER):
        return []
    what = f"HDF5 filter {_BLOSC_FILTER} (Blosc) is not available"
    return [Fault(Path(h5py.__file__), what, "pip install hdf5plugin, and unset HDF5_PLUGIN_PATH")]


def _check_split(paths: list[Path], dataset: DatasetConfig, thorough: bool) -> list[SequenceFacts]:
    if not thorough:
        paths = [paths[i] for i in _spread(len(paths), _QUICK_SEQUENCES)]
    sampled = set(_spread(len(paths), _SAMPLED_SEQUENCES))

    def check(i: int) -> SequenceFacts:
        return check_sequence(paths[i], dataset, num_samples=_SAMPLES_PER_SEQUENCE if i in sampled else 0)

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(check, range(len(paths))))


def _spread(count: int, limit: int) -> list[int]:
    """At most `limit` indices below `count`, evenly apart."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).astype(int)).tolist()


def _summary(split: str, facts: list[SequenceFacts], dataset: DatasetConfig) -> SplitSummary:
    intervals = np.concatenate([np.diff(sequence.label_t_us) for sequence in facts]) / 1000
    counts = [count for sequence in facts for count in sequence.counts_per_frame]
    no_boxes = np.zeros((dataset.num_classes, 3), dtype=np.int64)
    return SplitSummary(
        split=split,
        num_sequences=len(facts),
        num_frames=sum(sequence.num_frames for sequence in facts),
        num_labelled_frames=sum(len(sequence.label_t_us) for sequence in facts),
        boxes=sum((sequence.boxes for sequence in facts if sequence.boxes is not None), no_boxes),
        label_interval_ms=float(np.median(intervals)) if len(intervals) else float("nan"),
        longest_label_gap_ms=float(intervals.max()) if len(intervals) else float("nan"),
        counts_per_frame=float(np.mean(counts)) if counts else float("nan"),
    )
