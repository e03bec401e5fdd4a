"""The last lines of a run: what came out, where everything is, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modules.evaluation.evaluator import EvaluationResult
from modules.reports.tables import Table, figures_table, measured, sequences_table
from modules.run.folder import RunFolder
from modules.run.repeating import overrides_of_validation


@dataclass(frozen=True)
class Outcome:
    """What a training has come to.

    Attributes:
        best: with its AP; of the last stage.
        stopped_early: why.
        stages: those that have ended, as in results.json.
    """

    best: tuple[Path, float] | None = None
    last: Path | None = None
    stopped_early: str | None = None
    stages: Sequence[dict[str, Any]] = ()


def print_training_summary(run: RunFolder, outcome: Outcome, argv: Sequence[str]) -> None:
    """Name the folder, the best checkpoint with its AP, the last one, and the command that finds that AP again."""
    best, last = outcome.best, outcome.last
    lines = [f"Run folder:       {run.path}"]
    if outcome.stopped_early is not None:
        lines.append(f"Finished early:   {outcome.stopped_early}")
    lines += [f"Stage {stage['stage']}:          {_about_stage(run, stage)}" for stage in outcome.stages]
    profile = run.path / "profile"
    if profile.is_dir():
        lines.append(f"Profile:          {', '.join(str(path) for path in sorted(profile.iterdir()))}")
    if best is not None:
        lines.append(f"Best checkpoint:  {best[0]}  (val/AP {best[1]:.4f})")
    if last is not None:
        lines.append(f"Last checkpoint:  {last}")
    chosen = best[0] if best is not None else last
    if chosen is not None:
        command = shlex.join(
            ["python", "validation.py", *overrides_of_validation(argv), f"checkpoint={chosen.absolute()}"]
        )
        lines.append(f"Validate it:      {command}")
    print("\n" + "\n".join(lines), flush=True)


def _about_stage(run: RunFolder, stage: dict[str, Any]) -> str:
    """Its last checkpoint, with AP on its own frames and on those of the last stage."""
    height, width = stage["frame_hw"]
    found = [f"val/AP {_rounded(stage['AP'])} at {width} x {height}"]
    if stage["at_last_stage"] is not None:
        height, width = stage.get("last_stage_frame_hw") or ("?", "?")
        found.append(f"{_rounded(stage['at_last_stage'].get('AP'))} on the last stage's frames of {width} x {height}")
    return f"{run.checkpoints / stage['checkpoint']}  ({', '.join(found)})"


def _rounded(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


WORST_SEQUENCES = 5


def print_validation_summary(result: EvaluationResult, folder: Path, protocols: Table) -> None:
    """Print AP and its family, classes and groups, the worst sequences, other protocols, and where the files are."""
    # per class and per group they stand in the table of classes
    figures = [(name, measured(value)) for name, value in result.metrics.items() if "/" not in name]
    classes = figures_table("", [asdict(each) for each in (*result.classes, *result.groups)])
    worst = [asdict(each) for each in result.sequences[:WORST_SEQUENCES]]
    tables = [
        classes,
        Table("", ["metric", "value"], figures),
        *([sequences_table(f"Worst of {len(result.sequences)} sequences", worst)] if len(result.sequences) > 1 else []),
        *([protocols] if protocols.rows else []),
    ]
    protocol = result.protocol
    (height, width), (rows, columns) = protocol["resolution_hw"], protocol["sensor_hw"]
    lines = [
        *(table.format() for table in tables),
        f"Frames: {result.num_frames}, at {width} x {height} of a sensor of {columns} x {rows}",
        *([f"Only of: {', '.join(protocol['only'])}, not of the whole split"] if protocol["only"] else []),
        *([f"Compares with: {protocol['compares_with']}"] if protocol["compares_with"] else []),
        f"Results: {folder}",
    ]
    print("\n" + "\n".join(lines), flush=True)
