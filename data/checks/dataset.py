"""Check a data set before it costs a night: all its labels, samples of its frames."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
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
Part = Callable[[Sequence[int]], Sequence[int]]  # some of a split's sequences, by number


@dataclass(frozen=True)
class SplitSummary:
    """Totals over the checked sequences of a split; those of its parts add up."""

    split: str
    num_sequences: int
    num_frames: int
    num_labelled_frames: int
    boxes: Int64[ndarray, "classes 3"]  # by class and size: small, medium, large
    label_intervals_us: Counter[int]  # how often each occurs
    sum_of_counts: int  # of the sampled frames: counts are cut off, and pixels are as loaded
    num_sampled: int
    num_older: int  # sequences whose labelled frames were chosen by an older rule

    @property
    def label_interval_ms(self) -> float:
        """Median."""
        if not self.label_intervals_us:
            return float("nan")
        intervals_us, counts = zip(*self.label_intervals_us.items(), strict=True)
        return float(np.median(np.repeat(intervals_us, counts) / 1000))

    @property
    def longest_label_gap_ms(self) -> float:
        return max(self.label_intervals_us) / 1000 if self.label_intervals_us else float("nan")

    @property
    def counts_per_frame(self) -> float:
        """Mean of the sampled frames' sums."""
        return self.sum_of_counts / self.num_sampled if self.num_sampled else float("nan")

    def __add__(self, other: SplitSummary) -> SplitSummary:
        values = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self)[1:])
        return SplitSummary(self.split, *(one + another for one, another in values))


@dataclass(frozen=True)
class DatasetReport:
    splits: list[SplitSummary]
    faults: list[Fault]

    @property
    def blocking(self) -> list[Fault]:
        """The faults that training would suffer from."""
        return [fault for fault in self.faults if fault.blocks_training]


def check_dataset(
    dataset: DatasetConfig,
    *,
    thorough: bool,
    splits: tuple[str, ...] = SPLITS,
    part: Part | None = None,
) -> DatasetReport:
    """Look for everything that would block a training on the data set; never raises for a fault of the data.

    Args:
        thorough: every sequence's labels and files. Otherwise a few sequences of each split, in a second or two.
        splits: an absent `test` split is worth knowing, an absent other one is a fault.
        part: which of a split's sequences are looked at; what only all of them tell is left to `joined`.
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
        facts = _check_split([folder / name for name in names], dataset, thorough, part)
        faults += [fault for sequence in facts for fault in sequence.faults]
        summaries.append(_summary(split, facts, dataset))
    return DatasetReport(summaries, faults if part else [*faults, *_faults_of_whole(summaries, dataset)])


def _faults_of_whole(splits: Iterable[SplitSummary], dataset: DatasetConfig) -> Iterator[Fault]:
    """What only all sequences of a split tell."""
    for split in splits:
        folder = dataset.path / split.split
        if split.num_older:
            yield Fault(folder, _OLDER_LABELS.format(split.num_older), _OLDER_REMEDY, blocks_training=False)
        if split.num_labelled_frames == 0:
            yield Fault(folder, "no labelled frame", CHECK_LABELS)


def joined(reports: Sequence[DatasetReport], dataset: DatasetConfig) -> DatasetReport:
    """The report of all of which `reports` are the parts."""
    splits: dict[str, SplitSummary] = {}
    for split in (split for report in reports for split in report.splits):
        splits[split.split] = splits[split.split] + split if split.split in splits else split
    faults = dict.fromkeys(fault for report in reports for fault in report.faults)  # all parts see those of folders
    return DatasetReport(list(splits.values()), [*faults, *_faults_of_whole(splits.values(), dataset)])


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


def _check_split(paths: list[Path], dataset: DatasetConfig, thorough: bool, part: Part | None) -> list[SequenceFacts]:
    if not thorough:
        paths = [paths[i] for i in _spread(len(paths), _QUICK_SEQUENCES)]
    sampled = set(_spread(len(paths), _SAMPLED_SEQUENCES))

    def check(i: int) -> SequenceFacts:
        return check_sequence(paths[i], dataset, num_samples=_SAMPLES_PER_SEQUENCE if i in sampled else 0)

    with ThreadPoolExecutor(_THREADS) as pool:
        numbers = range(len(paths))
        return list(pool.map(check, part(numbers) if part else numbers))


def _spread(count: int, limit: int) -> list[int]:
    """At most `limit` indices below `count`, evenly apart."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).astype(int)).tolist()


def _summary(split: str, facts: list[SequenceFacts], dataset: DatasetConfig) -> SplitSummary:
    intervals: Counter[int] = Counter()
    for sequence in facts:
        intervals.update(np.diff(sequence.label_t_us).tolist())
    counts = [count for sequence in facts for count in sequence.counts_per_frame]
    no_boxes = np.zeros((dataset.num_classes, 3), dtype=np.int64)
    return SplitSummary(
        split=split,
        num_sequences=len(facts),
        num_frames=sum(sequence.num_frames for sequence in facts),
        num_labelled_frames=sum(len(sequence.label_t_us) for sequence in facts),
        boxes=sum((sequence.boxes for sequence in facts if sequence.boxes is not None), no_boxes),
        label_intervals_us=intervals,
        sum_of_counts=sum(counts),
        num_sampled=len(counts),
        num_older=sum(sequence.has_older_labels for sequence in facts),
    )
