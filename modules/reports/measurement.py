"""What a run's stored predictions say, and whether those of two runs may be compared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from models.weights.search import WEIGHTS
from modules.evaluation.coco import NO_GROUND_TRUTH
from modules.evaluation.evaluator import matches_of
from modules.evaluation.intervals import resample_weights
from modules.evaluation.labelled_frames import LabelledFrames
from modules.evaluation.matching import Matches
from modules.evaluation.protocol import apply_box_filter, box_filter_of
from modules.evaluation.results import StoredProtocol, StoredResults, read_predictions, read_results
from modules.evaluation.weighted import WeightedAp, mean_over_classes

MOST_BOXES_APART = 0.01  # of the ground truth of two runs: rounding at another resolution moves boxes over the filter


def weighted_by_sequence(matches: Matches, frames: LabelledFrames) -> tuple[WeightedAp, tuple[str, ...]]:
    """AP under weights of the sequences that have ground truth, and their names."""
    present, group = np.unique(frames.sequence, return_inverse=True)
    weighted = WeightedAp.of(matches, group, len(present))
    return weighted, tuple(frames.sequence_names[index] for index in present)


@dataclass(frozen=True)
class Measured:
    """What a run's stored predictions say: AP over all its sequences, and over each resample of them."""

    sequences: tuple[str, ...]
    boxes: Int64[ndarray, "classes sequences"]
    truth: str  # a digest of the boxes and the frames that they are in
    classes: tuple[str, ...]
    split: str
    frames: str  # height and width
    conditions: dict[str, str]  # by the key that sets each: no two figures compare under different ones
    checkpoint: str  # which of a run's it is of, and which weights
    ap: float
    resampled: Float64[ndarray, " resamples"]  # empty for fewer than two sequences


def newest_validation(folder: Path, split: str) -> Path | None:
    """The newest validation of a run on the whole split that stored its predictions; None without one."""
    found = [path.parent for path in folder.glob("*/frames.csv") if (path.parent / "results.json").is_file()]
    for validation in sorted(found, key=lambda path: (path / "frames.csv").stat().st_mtime, reverse=True):
        protocol = read_results(validation)["protocol"]
        if protocol["split"] == split and not protocol.get("only"):
            return validation
    return None


def measure_run(folder: Path, split: str) -> Measured | None:
    """What the newest stored validation of a run on the split says; None without one."""
    validation = newest_validation(folder, split)
    if validation is None:
        return None
    results = read_results(validation)
    protocol = results["protocol"]
    classes = tuple(protocol["classes"])
    kept = apply_box_filter(read_predictions(validation), box_filter_of(protocol))
    weighted, names = weighted_by_sequence(matches_of(kept, len(classes), protocol["score"]), kept)
    groups = weighted.num_groups
    ap = float(mean_over_classes(weighted(np.ones((1, groups), int)))[0]) if groups else NO_GROUND_TRUTH
    return Measured(
        sequences=names,
        boxes=weighted.num_truth,
        truth=_digest(kept),
        classes=classes,
        split=split,
        frames="{} x {}".format(*protocol["resolution_hw"]),
        conditions=_conditions(protocol),
        checkpoint=checkpoint_of(results),
        ap=ap,
        resampled=mean_over_classes(weighted(resample_weights(groups))) if groups > 1 else np.zeros(0),
    )


def _conditions(protocol: StoredProtocol) -> dict[str, str]:
    loaded, box_filter = protocol["resolution_hw"], protocol["box_filter_px"]
    scale = min(side / whole for side, whole in zip(loaded, protocol.get("sensor_hw", loaded), strict=True))
    return {
        "evaluation.score": protocol["score"],
        "model.postprocess.confidence_threshold": str(protocol["confidence_threshold"]),
        "model.postprocess.nms_threshold": str(protocol["nms_threshold"]),
        "dataset.eval.box_filter.min_diagonal": f"{box_filter['min_diagonal'] / scale:.4g}",
        "dataset.eval.box_filter.min_side": f"{box_filter['min_side'] / scale:.4g}",
        "dataset.eval.box_filter.skip_first_ms": f"{box_filter['skip_first_ms']:g}",
    }


def checkpoint_of(results: StoredResults) -> str:
    """Which of a run's checkpoints, and which of its weights."""
    name, key = Path(results.get("checkpoint", "")).name, results.get("weights_key")
    kinds = {"last_": "last checkpoint", "epoch=": "best checkpoint", "stage=": "checkpoint of a stage"}
    kind = next((told for beginning, told in kinds.items() if name.startswith(beginning)), "checkpoint")
    return kind if key in (None, WEIGHTS) else f"{kind}, weights_key={key}"


def _digest(frames: LabelledFrames) -> str:
    truth, sequence = frames.truth, np.unique(frames.sequence, return_inverse=True)[1]  # those without boxes are none
    parts = (sequence, frames.t_us, truth.frame, truth.class_id, truth.xywh)
    return hashlib.sha256(b"|".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def why_not_alike(one: Measured, other: Measured) -> str | None:
    """Why AP of two runs is of different things; None where it is of the same boxes under the same conditions."""
    if one.classes != other.classes:
        return f"other classes: {', '.join(one.classes)}; {', '.join(other.classes)}"
    if one.sequences != other.sequences:
        return "measured on other sequences"
    for key, value in one.conditions.items():
        if other.conditions[key] != value:
            remedy = f"Run validation.py again on all of them with {key}={value}"
            return f"measured with {key}={value} and {other.conditions[key]}, which moves AP by itself. {remedy}"
    if one.frames == other.frames:
        return None if one.truth == other.truth else "measured on other ground truth"
    apart, all_boxes = np.abs(one.boxes - other.boxes).sum(axis=0), np.maximum(one.boxes, other.boxes).sum(axis=0)
    return "measured on other ground truth" if (apart > all_boxes * MOST_BOXES_APART).any() else None
