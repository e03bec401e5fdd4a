"""The last lines of a run: where everything is, and what to type next."""

from __future__ import annotations

import shlex
from pathlib import Path

from callbacks.checkpoint import CheckpointWriter
from config.schema import TrainConfig
from modules.evaluation import EvaluationResult
from modules.run_folder import RunFolder


def print_training_summary(run: RunFolder, writer: CheckpointWriter, config: TrainConfig, choices: list[str]) -> None:
    """Name the folder, the checkpoints and the command that validates the best one.

    `choices` are the overrides that picked data set, model and experiment.
    """
    best = run.checkpoints / writer.best[0]["file"] if writer.best else None
    print(f"\nRun folder:       {run.path}")
    if best is not None:
        print(f"Best checkpoint:  {best}  (val/AP {writer.best[0]['AP']:.4f})")
    if writer.last is not None:
        print(f"Last checkpoint:  {writer.last}")
    chosen = best or writer.last
    if chosen is not None:
        overrides = [
            *choices,
            f"checkpoint={chosen}",
            "model.postprocess.confidence_threshold=0.001",
            f"batch_size.eval={config.batch_size.eval}",
        ]
        print(f"Validate:         python validation.py {shlex.join(overrides)}", flush=True)


def print_validation_summary(result: EvaluationResult, folder: Path) -> None:
    """Print AP and its family, the classes' table, and where the files are."""
    print(f"\n{result.as_text()}\nResults:          {folder}", flush=True)
