"""Is a difference real? Runs of one config as one row, and rows against each other, from stored predictions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from config.errors import UserError
from models.weights.search import WEIGHTS
from modules.evaluation.coco import NO_GROUND_TRUTH
from modules.evaluation.evaluator import matches_of
from modules.evaluation.intervals import (
    Interval,
    interval_of,
    interval_of_difference,
    resample_weights,
)
from modules.evaluation.labelled_frames import LabelledFrames
from modules.evaluation.matching import Matches
from modules.evaluation.protocol import apply_box_filter, box_filter_of
from modules.evaluation.results import StoredProtocol, StoredResults, read_predictions, read_results
from modules.evaluation.weighted import WeightedAp, mean_over_classes
from modules.reports.run_table import RunRow
from modules.reports.tables import Cell, Table

FEW_SEQUENCES = 6  # below, intervals of 95 % hold the truth clearly more seldom (docs/evaluation.md)
ONE_SEQUENCE = "fewer than two sequences with ground truth: no interval can be had"
MOST_BOXES_APART = 0.01  # of the ground truth of two runs: rounding at another resolution moves boxes over the filter
# Keys that change nothing that a run finds, or that make it another run of the same config.
_OF_THE_RUN = (
    "reproduce.seed_everything",
    "experiment",
    "hardware",
    "logging",
    "logger",
    "wandb",
    "run_root",
    "checkpoint",
    "resume",
    "check",
    "trust_checkpoint",
    "batch_size.eval",
)


# --- one validation --------------------------------------------------------------------------------------------------


def weighted_by_sequence(matches: Matches, frames: LabelledFrames) -> tuple[WeightedAp, tuple[str, ...]]:
    """AP under weights of the sequences that have ground truth, and their names."""
    present, group = np.unique(frames.sequence, return_inverse=True)
    weighted = WeightedAp.of(matches, group, len(present))
    return weighted, tuple(frames.sequence_names[index] for index in present)


def interval_table(weighted: WeightedAp, classes: Sequence[str]) -> Table | str:
    """AP and AP_50 with their intervals, over classes and of each; or why there is none."""
    groups = weighted.num_groups
    if groups < 2:
        return ONE_SEQUENCE
    whole, resampled = weighted(np.ones((1, groups), int)), weighted(resample_weights(groups))
    rows: list[list[Cell]] = []
    for name, columns in (("all", slice(None)), *((name, slice(i, i + 1)) for i, name in enumerate(classes))):
        own_groups = int((weighted.num_truth[columns].sum(axis=0) > 0).sum())
        if own_groups == 0:
            continue
        row: list[Cell] = [name, own_groups]
        for levels in (slice(None), slice(0, 1)):
            estimate = float(mean_over_classes(whole[:, columns, levels])[0])
            values = mean_over_classes(resampled[:, columns, levels])
            row.append(estimate)
            if own_groups < 2:
                row += [None, None]
            else:
                found = interval_of(estimate, values[values > NO_GROUND_TRUTH], own_groups)
                row += [max(found.low, 0.0), min(found.high, 1.0)]
        rows.append(row)
    header = ["class", "sequences", "AP", "from", "to", "AP_50", "from ", "to "]
    few = ", too narrow with so few" if groups < FEW_SEQUENCES else ""
    return Table(f"95 % intervals over {groups} sequences{few}", header, rows)


# --- groups of runs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What a run's stored predictions say: AP over all its sequences, and over each resample of them."""

    sequences: tuple[str, ...]
    boxes: Int64[ndarray, " sequences"]
    classes: tuple[str, ...]
    split: str
    frames: str  # height and width
    conditions: dict[str, str]  # by the key that sets each: no two figures compare under different ones
    checkpoint: str  # which of a run's it is of, and which weights
    ap: float
    resampled: Float64[ndarray, " resamples"]  # empty for fewer than two sequences


@dataclass(frozen=True)
class RunGroup:
    """Runs of one config that differ in their seed."""

    name: str
    runs: list[RunRow]
    measured: list[Measured]  # of each run, or none of any

    @property
    def ap(self) -> list[float]:
        if self.measured:
            return [each.ap for each in self.measured]
        return [float(ap) for run in self.runs if isinstance(ap := run.cells.get("AP"), int | float)]


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
    resampled = mean_over_classes(weighted(resample_weights(groups))) if groups > 1 else np.zeros(0)
    frames = "{} x {}".format(*protocol["resolution_hw"])
    boxes, conditions, checkpoint = weighted.num_truth.sum(axis=0), _conditions(protocol), _checkpoint_of(results)
    return Measured(names, boxes, classes, split, frames, conditions, checkpoint, ap, resampled)


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


def _checkpoint_of(results: StoredResults) -> str:
    name, key = Path(results.get("checkpoint", "")).name, results.get("weights_key")
    kinds = {"last_": "last checkpoint", "epoch=": "best checkpoint", "stage=": "checkpoint of a stage"}
    kind = next((told for beginning, told in kinds.items() if name.startswith(beginning)), "a checkpoint")
    return kind if key in (None, WEIGHTS) else f"{kind}, weights_key={key}"


def _apart(measured: Sequence[Measured]) -> str | None:
    """In what these were measured that moves AP by itself, and what to do; None where they can be compared."""
    for key in measured[0].conditions if measured else ():
        values = list(dict.fromkeys(each.conditions[key] for each in measured))
        if len(values) > 1:
            remedy = f"Run validation.py again on all of them with {key}={values[0]}"
            return f"measured with {key}={' and '.join(values)}, which moves AP by itself. {remedy}"
    return None


def group_runs(runs: Sequence[RunRow], split: str = "val") -> tuple[list[RunGroup], list[str]]:
    """Runs of one config together, in the order of the first of each; and a line for each that has no predictions."""
    by_config: dict[str, list[RunRow]] = {}
    for run in runs:
        if run.config and run.folder is not None:
            by_config.setdefault(repr(sorted(_decisive(run.config).items())), []).append(run)
    groups, notes = [], []
    for members in by_config.values():
        measured = [measure_run(run.folder, split) for run in members if run.folder is not None]
        missing = [run.name for run, each in zip(members, measured, strict=True) if each is None]
        if missing:
            told = f"{', '.join(missing)}: no stored predictions of the {split} split, so no interval"
            notes.append(f"{told}. Run validation.py with their best checkpoints")
        whole = [each for each in measured if each is not None]
        if (apart := _apart(whole)) is not None:
            notes.append(f"{', '.join(run.name for run in members)}: {apart}")
        groups.append(RunGroup(_name(members), members, [] if missing or apart else whole))
    return _with_different_names(groups), notes


def _decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: str(value)
        for key, value in config.items()
        if not any(key == own or key.startswith(f"{own}.") for own in _OF_THE_RUN)
    }


def _name(runs: Sequence[RunRow]) -> str:
    names = list(dict.fromkeys(str(run.config.get("experiment.name") or "") for run in runs))
    return names[0] if len(names) == 1 and names[0] else str(runs[0].cells.get("experiment") or runs[0].name)


def _with_different_names(groups: Sequence[RunGroup]) -> list[RunGroup]:
    """Configs that differ in single keys are called alike: then by their first run."""
    names = [group.name for group in groups]
    return [
        group if names.count(group.name) == 1 else RunGroup(f"{group.name} ({group.runs[0].name})", *_rest(group))
        for group in groups
    ]


def _rest(group: RunGroup) -> tuple[list[RunRow], list[Measured]]:
    return group.runs, group.measured


def group_table(groups: Sequence[RunGroup]) -> Table:
    """Mean, spread and number of the runs of each config."""
    rows: list[list[Cell]] = []
    sizes = {each.frames for group in groups for each in group.measured}
    for group in groups:
        ap = [value for value in group.ap if value >= 0]
        seeds = ", ".join(str(run.config.get("reproduce.seed_everything")) for run in group.runs)
        spread = float(np.std(ap, ddof=1)) if len(ap) > 1 else None
        source = f"stored, {len(group.measured[0].sequences)} sequences" if group.measured else "best in training"
        if group.measured and len(sizes) > 1:
            source += f", frames of {', '.join(sorted({each.frames for each in group.measured}))}"
        if group.measured:
            source += f", {' and '.join(sorted({each.checkpoint for each in group.measured}))}"
        rows.append([group.name, float(np.mean(ap)) if ap else None, spread, len(group.runs), seeds, source])
    return Table("Runs of one config", ["config", "AP", "spread", "runs", "seeds", "of"], rows)


def compare_groups(one: RunGroup, other: RunGroup) -> Interval | str:
    """AP of the first less that of the second with its interval, or why none can be had."""
    if not one.measured or not other.measured:
        return "no stored predictions of all runs"
    first = one.measured[0]
    for each in (*one.measured, *other.measured):
        if each.classes != first.classes:
            return f"other classes: {', '.join(each.classes)}; {', '.join(first.classes)}"
        if each.sequences != first.sequences:
            return "measured on other sequences"
        if (np.abs(each.boxes - first.boxes) > np.maximum(first.boxes, each.boxes) * MOST_BOXES_APART).any():
            return "measured on other ground truth"
    if (apart := _apart([*one.measured, *other.measured])) is not None:
        return apart
    if len(first.sequences) < 2:
        return ONE_SEQUENCE
    return interval_of_difference(
        (one.ap, other.ap),
        (np.stack([each.resampled for each in one.measured]), np.stack([each.resampled for each in other.measured])),
        len(first.sequences),
    )


def verdict(one: RunGroup, other: RunGroup, found: Interval | str) -> str:
    """One sentence that a reader may repeat."""
    if isinstance(found, str):
        return f"{one.name} and {other.name}: {found}"
    bounds = f"95 % interval {100 * found.low:+.1f} to {100 * found.high:+.1f}, p {_told(found.p_value)}"
    if not found.excludes_0:
        told = f"not distinguishable with this data: {100 * found.estimate:+.1f} AP ({bounds})"
        text = f"{one.name} and {other.name}: {told}"
    else:
        which = "better" if found.estimate > 0 else "worse"
        text = f"{one.name} is {which} than {other.name} by {100 * abs(found.estimate):.1f} AP ({bounds})"
    single = [group.name for group in (one, other) if len(group.runs) == 1]
    if single:
        text += f". One run of {' and of '.join(single)}: what another seed would change is not in the interval"
    taken = [sorted({each.checkpoint for each in group.measured}) for group in (one, other)]
    if taken[0] != taken[1]:
        text += (
            f". {one.name}: {' and '.join(taken[0])}; {other.name}: {' and '.join(taken[1])}, which may be all of it"
        )
    if one.measured and len(one.measured[0].sequences) < FEW_SEQUENCES:
        text += f". With {len(one.measured[0].sequences)} sequences the interval is too narrow"
    return text


def difference_rows(groups: Sequence[RunGroup], baseline: str | None) -> list[str]:
    """Sentences: each config against the baseline, or all pairs without one."""
    if baseline is None:
        pairs = list(itertools.combinations(groups, 2))
    else:
        chosen = [group for group in groups if baseline in (group.name, *(run.name for run in group.runs))]
        if not chosen:
            known = ", ".join(group.name for group in groups)
            raise UserError(f"--baseline {baseline}: no such config or run. There are: {known}")
        pairs = [(group, chosen[0]) for group in groups if group is not chosen[0]]
    lines = [verdict(one, other, compare_groups(one, other)) for one, other in pairs]
    if len(lines) > 1:
        lines.append(f"{len(lines)} comparisons: of 20 that are none, one looks real at this level by chance")
    return lines


def _told(p_value: float) -> str:
    return f"= {p_value:.3f}" if p_value >= 0.002 else "< 0.002"
