"""Faults of one sequence folder: what would block a training on it, where, and what helps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from config.errors import UserError
from config.schema import DatasetConfig
from data.arrays import read_npy, read_npz, reading, whole_numbers
from data.boxes import LARGE_FROM_PX2, SMALL_BELOW_PX2
from data.frame_files import told_by
from data.labels import loaded_boxes, read_labels, require_boxes
from data.layout import (
    BOXES_KEY,
    FIRST_BOX_KEY,
    PREPROCESS_AGAIN,
    RESTORE_LINK,
    RULE_KEY,
    SETTINGS_KEY,
    SequenceLayout,
    is_dangling,
)
from data.sequence import Hdf5Frames, Sequence

EMPTY_REMEDY = (
    "Events and labels are of different clocks: delete the sequence's folder and run scripts/preprocess.py again, "
    "which compares them and names the setting"
)
_LABELLED_SAMPLES, _LABELLED_ASKED = 8, 400


@dataclass(frozen=True)
class Fault:
    """Something wrong at a place in a file.

    It blocks training, or is only worth knowing; where it is `skippable`, training can go on without that chunk.
    """

    path: Path
    what: str
    remedy: str
    blocks_training: bool = True
    skippable: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.what}. {self.remedy}"


@dataclass
class SequenceFacts:
    """What a sequence holds; `faults` first."""

    faults: list[Fault]
    num_frames: int = 0
    label_t_us: Int64[ndarray, " k"] = field(default_factory=lambda: np.zeros(0, np.int64))
    boxes: Int64[ndarray, "classes 3"] | None = None  # by class and size
    counts_per_frame: list[int] = field(default_factory=list)  # of the sampled frames
    has_older_labels: bool = False  # chosen by the rule that measured from the first labelled frame


def check_sequence(path: Path, dataset: DatasetConfig, *, num_samples: int) -> SequenceFacts:
    """Read all labels and `num_samples` frames, spread over the sequence, and some labelled ones if it is not 0."""
    facts = SequenceFacts(faults=[])
    if is_dangling(path):
        facts.faults.append(Fault(path, f"a link to {path.readlink()}, which is not there", RESTORE_LINK))
        return facts
    layout = SequenceLayout.of(path, dataset)
    if not layout.representation.is_dir():
        facts.faults.append(_wrong_layout(layout.representation))
        return facts
    try:
        t_us = _whole(layout.frame_times, "times")
        label_frame = _whole(layout.label_frames, "indices")
        facts.num_frames = len(t_us)
        facts.faults += _check_times(layout, t_us, label_frame)
        with reading(layout.boxes, PREPROCESS_AGAIN):
            raw, first_box = read_npz(layout.boxes, (BOXES_KEY, FIRST_BOX_KEY), PREPROCESS_AGAIN)
            first_box = whole_numbers(first_box, FIRST_BOX_KEY)
            require_boxes(raw)
        facts.faults += _check_boxes(layout, raw, first_box, label_frame, dataset)
        if any(fault.blocks_training for fault in facts.faults):
            return facts
        facts.label_t_us = t_us[label_frame]
        facts.faults += _check_label_times(layout, raw, first_box, facts.label_t_us, dataset)
        facts.boxes = _count_boxes(raw, dataset)
        if not any(fault.blocks_training for fault in facts.faults):
            read_labels(path, dataset)  # what training would refuse
    except UserError as error:
        facts.faults.append(Fault(path, str(error).removeprefix(f"{path}/"), ""))
        return facts
    except Exception as error:  # an odd file is a fault of the data, whatever numpy says to it
        what = f"its labels or times are of no form that is known ({type(error).__name__}: {error})"
        facts.faults.append(Fault(path, what, PREPROCESS_AGAIN))
        return facts
    _check_frames(layout, dataset, facts, num_samples)
    return facts


def _whole(path: Path, what: str) -> Int64[ndarray, " n"]:
    with reading(path, PREPROCESS_AGAIN):
        return whole_numbers(read_npy(path, PREPROCESS_AGAIN), what)


def _wrong_layout(representation: Path) -> Fault:
    parent = representation.parent
    found = sorted(entry.name for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []
    remedy = f"There is {', '.join(found)}: set dataset.ev_repr_name" if found else PREPROCESS_AGAIN
    return Fault(representation, "not found", remedy)


def _check_times(layout: SequenceLayout, t_us: ndarray, label_frame: ndarray) -> Iterator[Fault]:
    unsorted = np.flatnonzero(np.diff(t_us) <= 0)
    if len(unsorted):
        yield Fault(
            layout.frame_times, f"times do not rise at frame {unsorted[0] + 1} of {len(t_us)}", PREPROCESS_AGAIN
        )
    path = layout.label_frames
    if len(label_frame) == 0:
        yield Fault(path, "no labelled frame", "Training leaves the sequence out", blocks_training=False)
    elif label_frame.min() < 0 or label_frame.max() >= len(t_us):
        yield Fault(path, f"frame {label_frame.max()} of {len(t_us)}: the index map does not fit", PREPROCESS_AGAIN)
    elif (np.diff(label_frame) <= 0).any():
        yield Fault(path, f"indices do not rise at label {np.diff(label_frame).argmin() + 1}", PREPROCESS_AGAIN)


def _check_boxes(
    layout: SequenceLayout, raw: ndarray, first_box: ndarray, label_frame: ndarray, dataset: DatasetConfig
) -> Iterator[Fault]:
    path = layout.boxes
    if len(first_box) != len(label_frame):
        what = f"{len(first_box)} labelled frames, but {layout.label_frames.name} has {len(label_frame)}"
        yield Fault(path, f"{what}: the index maps do not fit", PREPROCESS_AGAIN)
        return
    if len(first_box) and (first_box[0] != 0 or first_box[-1] > len(raw) or (np.diff(first_box) < 0).any()):
        yield Fault(path, f"{FIRST_BOX_KEY} does not fit the boxes", PREPROCESS_AGAIN)
        return
    values = np.stack([raw[name] for name in "xywh"], axis=1)
    strange = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(strange):
        what = f"{len(strange)} boxes are not finite, the first is box {strange[0]}"
        yield Fault(path, what, f"Loading drops them. {PREPROCESS_AGAIN}", blocks_training=len(strange) > len(raw) / 2)
    unknown = np.flatnonzero((raw["class_id"] < 0) | (raw["class_id"] >= len(dataset.label_classes)))
    if len(unknown):
        ids = sorted(set(raw["class_id"][unknown].tolist()))
        named = "dataset.classes" if dataset.stored_classes is None else "dataset.stored_classes"
        what = f"class ids {ids} of {len(unknown)} boxes are not in {named} (0..{len(dataset.label_classes) - 1})"
        yield Fault(path, what, "Choose the dataset=... that it was preprocessed for")
    height, width = dataset.resolution_hw
    x, y, w, h = values.T
    outside = np.flatnonzero((x + w <= 0) | (y + h <= 0) | (x >= width) | (y >= height) | (w <= 0) | (h <= 0))
    if len(outside):
        what = (
            f"{len(outside)} boxes lie outside of {height} x {width} pixels or are flat, the first is box {outside[0]}"
        )
        yield Fault(
            path, what, "Loading drops them; check dataset.resolution_hw", blocks_training=len(outside) > len(raw) / 2
        )


def _check_label_times(
    layout: SequenceLayout, raw: ndarray, first_box: ndarray, label_t_us: ndarray, dataset: DatasetConfig
) -> Iterator[Fault]:
    boxed = np.flatnonzero(np.diff(np.append(first_box, len(raw))))
    apart = np.abs(raw["t"][first_box[boxed]].astype(np.int64) - label_t_us[boxed])
    if len(apart) and apart.max() > dataset.representation.window_us:
        worst = boxed[apart.argmax()]
        what = f"labelled frame {worst} is {apart.max() / 1000:.0f} ms away from its window: the index maps do not fit"
        yield Fault(layout.boxes, what, PREPROCESS_AGAIN)


def _count_boxes(raw: ndarray, dataset: DatasetConfig) -> Int64[ndarray, "classes 3"]:
    class_id, _, _, w, h = loaded_boxes(raw, dataset).T
    seen = (w > 0) & (h > 0) & (class_id < dataset.num_classes)
    cell = class_id[seen].astype(np.int64) * 3 + np.digitize(w[seen] * h[seen], (SMALL_BELOW_PX2, LARGE_FROM_PX2))
    return np.bincount(cell, minlength=3 * dataset.num_classes).reshape(dataset.num_classes, 3)


def fault_of(error: UserError, path: Path, skippable: bool = False) -> Fault:
    """What a reader says, at the file that it names, else at `path`."""
    named, _, rest = str(error).partition(": ")
    if named.startswith(f"{path.parent}/") and rest:
        path = Path(named)
    what, _, remedy = str(error).removeprefix(f"{path}").lstrip(": ").partition(". ")
    return Fault(path, what, remedy, skippable=skippable)


def _check_frames(layout: SequenceLayout, dataset: DatasetConfig, facts: SequenceFacts, num_samples: int) -> None:
    if not layout.present_frames:
        others = sorted(other.name for other in layout.representation.glob("*.h5"))
        make = "make this size (sizes=[{},{}] of scripts/preprocess.py, resample_frames.py)".format(*dataset.loaded_hw)
        remedy = (
            f"There is {', '.join(others)}: check dataset.downsample_by_factor_2 and dataset.frame_hw, or {make}"
            if others
            else PREPROCESS_AGAIN
        )
        facts.faults.append(Fault(layout.frames, "not found", remedy))
        return
    path = layout.present_frames[0]
    sequence = Sequence(layout.folder, dataset)
    try:
        expected = (dataset.channels, *dataset.loaded_hw)
        if sequence.frame_chw != expected:
            what = f"frames are {sequence.frame_chw}, but the config says {expected} (channels, height, width)"
            remedy = "Check dataset.resolution_hw, downsample_by_factor_2, frame_hw and representation"
            facts.faults.append(Fault(path, what, remedy))
            return
        for index in np.unique(np.linspace(0, facts.num_frames - 1, num_samples).astype(int)).tolist():
            try:
                facts.counts_per_frame.append(int(sequence.frames(index, index + 1).sum()))
            except UserError as error:
                facts.faults.append(fault_of(error, path, skippable=True))
        if num_samples and not facts.faults:
            facts.faults += _check_labelled_frames(layout, sequence)
        told = next(filter(None, map(told_by, layout.present_frames)), {})
        # by this project, before it measured each interval from the labelled frame before
        facts.has_older_labels = SETTINGS_KEY in told and RULE_KEY not in told
        facts.faults += _check_classes(path, told.get(SETTINGS_KEY), dataset)
        if layout.frames.is_file() and not Hdf5Frames(layout.frames).has_checksums:
            what = "no checksums (fletcher32): damage would be read as wrong frames"
            remedy = "scripts/compact_frames.py adds files with"
            facts.faults.append(Fault(layout.frames, what, remedy, blocks_training=False))
    except UserError as error:
        facts.faults.append(fault_of(error, path))
    finally:
        sequence.close()


def _check_labelled_frames(layout: SequenceLayout, sequence: Sequence) -> Iterator[Fault]:
    """Labels of another clock, or in another unit, lie on frames without events: a few tell, then more are asked."""
    labelled = _whole(layout.label_frames, "indices")
    for limit in (_LABELLED_SAMPLES, _LABELLED_ASKED):
        sample = labelled[np.unique(np.linspace(0, len(labelled) - 1, min(limit, len(labelled))).astype(int))]
        empty = 0
        for index in sample.tolist():
            try:
                empty += not sequence.frames(index, index + 1).any()
            except UserError as error:
                yield fault_of(error, layout.present_frames[0], skippable=True)
                return
        if empty <= len(sample) / 2:
            return
    yield Fault(layout.present_frames[0], f"{empty} of {len(sample)} labelled frames hold no event", EMPTY_REMEDY)


def _check_classes(frames_path: Path, told: object, dataset: DatasetConfig) -> Iterator[Fault]:
    """The classes that this project made the labels for; a file of RVT's own script does not tell them."""
    try:
        made_for = json.loads(told)["classes"] if isinstance(told, str) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return  # damaged: scripts/preprocess.py says so
    if isinstance(made_for, list) and len(made_for) != len(dataset.label_classes):
        what = f"its labels are of {len(made_for)} classes ({', '.join(map(str, made_for))})"
        remedy = f"dataset={dataset.name} reads {len(dataset.label_classes)}: {', '.join(dataset.label_classes)}"
        yield Fault(frames_path, what, f"{remedy}. Choose the dataset=... that it was preprocessed for")
