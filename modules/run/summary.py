"""The last lines of a run: what came out, where everything is, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from config.schema import TrainConfig
from modules.evaluation.evaluator import EvaluationResult
from modules.reports.tables import Table, figures_table, measured
from modules.run.folder import RunFolder

_OF_THE_MODEL = ("--config-dir=", "dataset=", "dataset.", "model=", "model.", "+experiment", "hardware.gpus=")
_OF_TRAINING = ("dataset.train.", "dataset.data_augmentation.", "model.postprocess.")


def print_training_summary(
    run: RunFolder, best: tuple[Path, float] | None, last: Path | None, config: TrainConfig, argv: Sequence[str]
) -> None:
    """Name the folder, the best checkpoint with its AP, the last one, and the command that validates the best."""
    lines = [f"Run folder:       {run.path}"]
    if best is not None:
        lines.append(f"Best checkpoint:  {best[0]}  (val/AP {best[1]:.4f})")
    if last is not None:
        lines.append(f"Last checkpoint:  {last}")
    chosen = best[0] if best is not None else last
    if chosen is not None:
        overrides = [*overrides_of_the_model(argv), f"checkpoint={chosen}", f"batch_size.eval={config.batch_size.eval}"]
        command = shlex.join(["python", "validation.py", *overrides, "model.postprocess.confidence_threshold=0.001"])
        lines.append(f"Validate it:      {command}")
    print("\n" + "\n".join(lines), flush=True)


def overrides_of_the_model(argv: Sequence[str]) -> list[str]:
    """Return the overrides that picked data, model and device: what validation.py needs of a training command."""
    return [
        text
        for text in argv
        if text.lstrip("+").startswith(tuple(name.lstrip("+") for name in _OF_THE_MODEL))
        and not text.lstrip("+").startswith(_OF_TRAINING)
    ]


def print_validation_summary(result: EvaluationResult, folder: Path) -> None:
    """Print AP and its family, classes and groups, and where the files are."""
    # per class and per group they stand in the table of classes
    figures = [(name, measured(value)) for name, value in result.metrics.items() if "/" not in name]
    classes = figures_table("", [asdict(each) for each in (*result.classes, *result.groups)])
    tables = classes, Table("", ["metric", "value"], figures)
    lines = [*(table.format() for table in tables), f"Frames: {result.num_frames}", f"Results: {folder}"]
    print("\n" + "\n".join(lines), flush=True)
