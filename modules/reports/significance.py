"""Is a difference real? Runs of one config as one row, and rows against each other, from stored predictions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from config.errors import UserError
from modules.evaluation.coco import NO_GROUND_TRUTH
from modules.evaluation.intervals import Interval, interval_of, interval_of_difference, resample_weights
from modules.evaluation.weighted import WeightedAp, mean_over_classes
from modules.reports.measurement import Measured, measure_run, why_not_alike
from modules.reports.run_table import RunRow
from modules.reports.tables import Cell, Table

FEW_SEQUENCES = 6  # below, intervals of 95 % hold the truth clearly more seldom (docs/evaluation.md)
ONE_SEQUENCE = "fewer than two sequences with ground truth: no interval can be had"
# Keys that change nothing that a run finds, or that make it another run of the same config.
_OF_THE_RUN = (
    "reproduce.seed_everything",
    "experiment",
    "notes",
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


def group_runs(runs: Sequence[RunRow], split: str = "val") -> tuple[list[RunGroup], list[str]]:
    """Runs of one config together, in the order of the first of each; and lines about what a mean must not hide."""
    by_config: dict[str, list[RunRow]] = {}
    for run in runs:
        if run.config and run.folder is not None:
            by_config.setdefault(repr(sorted(_decisive(run.config).items())), []).append(run)
    groups, notes = [], []
    for members in by_config.values():
        group, told = _group(members, split)
        groups.append(group)
        notes += told
    return _with_different_names(groups), notes


def _group(runs: Sequence[RunRow], split: str) -> tuple[RunGroup, list[str]]:
    """Runs of one config, without predictions where these have no common mean."""
    # in the order of seeds: resampling depends on it, and must not depend on the folders' names, which are drawn
    runs = sorted(runs, key=lambda run: (len(seed_of(run)), seed_of(run)))
    found = [(run, measure_run(run.folder, split)) for run in runs if run.folder is not None]
    found, notes = _without_repeated(found)
    for run, _ in found:
        status = str(run.cells.get("status"))
        if not status.startswith("finished"):
            notes.append(f"{run.name}: no finished run ({status}), of {run.cells.get('steps') or 'unknown'} steps")
    kept, measured = [run for run, _ in found], [each for _, each in found if each is not None]
    missing = [run.name for run, each in found if each is None]
    if missing:
        told = f"{', '.join(missing)}: no stored predictions of the {split} split, so no interval"
        notes.append(f"{told}. Run validation.py with their best checkpoints")
    elif (why := _why_no_mean(measured)) is not None:
        notes.append(f"{', '.join(run.name for run in kept)} are of one config, but {why}")
    else:
        return RunGroup(_name(kept), kept, measured), notes
    return RunGroup(_name(kept), kept, []), notes


def _without_repeated(
    found: Sequence[tuple[RunRow, Measured | None]],
) -> tuple[list[tuple[RunRow, Measured | None]], list[str]]:
    """One of the runs that tell the same thing twice: a copy, or the same seed on a machine that repeats itself."""
    kept: list[tuple[RunRow, Measured | None]] = []
    notes = []
    for run, measured in found:
        same = (other for other, its in kept if measured and its and _repeats(run, measured, other, its))
        if (first := next(same, None)) is None:
            kept.append((run, measured))
        else:
            notes.append(f"{run.name} repeats {first.name}, with its seed and its figures: counted once")
    return kept, notes


def _repeats(run: RunRow, measured: Measured, other: RunRow, its: Measured) -> bool:
    return seed_of(run) == seed_of(other) and np.array_equal(
        [measured.ap, *measured.resampled], [its.ap, *its.resampled]
    )


def _why_no_mean(measured: Sequence[Measured]) -> str | None:
    for each in measured[1:]:
        if each.frames != measured[0].frames:
            return f"measured on frames of {measured[0].frames} and of {each.frames}"
        if (why := why_not_alike(measured[0], each)) is not None:
            return why
    return None


def seed_of(run: RunRow) -> str:
    return str(run.config.get("reproduce.seed_everything"))


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
        seeds = ", ".join(seed_of(run) for run in group.runs)
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
        if (why := why_not_alike(first, each)) is not None:
            return why
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
    single = [group.name for group in (one, other) if len({seed_of(run) for run in group.runs}) == 1]
    if single:
        text += f". One seed of {' and of '.join(single)}: what another would change is not in the interval"
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
