"""Damaged chunks: reported, counted, and too many of them end the run; a mere evaluation takes none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from config.errors import UserError
from data.batch import SequenceBatch
from modules.boundary import BoundaryCallback
from modules.run.writing import append_line


class TooMuchDamageError(UserError):
    """Raised at a safe place, between two steps or two validation batches."""


class DamageCounter(BoundaryCallback):
    """Counts what the loader could not read. The frames came as zeros without labels, with the lane's state reset.

    A chunk that is met again, in the next validation or epoch, counts once; a resumed run counts anew, as the data may
    have been mended.
    """

    def __init__(self, log_file: Path, limit: int) -> None:
        self._places: set[str] = set()
        self._log_file = log_file
        self._limit = limit

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: SequenceBatch, batch_idx: int
    ) -> None:
        self._note(trainer, batch)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._note(trainer, batch)
        self._check()

    def on_step_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check()

    def _note(self, trainer: Trainer, batch: SequenceBatch) -> None:
        for fault in batch.faults:
            self._places.add(fault)
            print(f"damaged chunk skipped at step {trainer.global_step}: {fault}", flush=True)
            append_line(self._log_file, f"step {trainer.global_step}: {fault}")

    def _check(self) -> None:
        if len(self._places) > self._limit:
            raise TooMuchDamageError(
                f"{len(self._places)} damaged chunks, more than training.max_damaged_chunks={self._limit}. They "
                f"stand in {self._log_file}: preprocess these sequences again, or raise the limit"
            )


class CompleteEvaluation(Callback):
    """Ends an evaluation that cannot read all frames: its figures would not be those of the split."""

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch.faults:
            raise UserError("\n".join([*batch.faults, "Without these frames the result would not be the split's"]))

    on_test_batch_start = on_validation_batch_start
