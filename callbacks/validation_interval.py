"""Validation every so many optimizer steps, where Lightning counts batches."""

from __future__ import annotations

import sys
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from modules.detection import of_ours


class ValidationInSteps(Callback):
    """Tells Lightning after each batch whether a validation is due.

    With gradient accumulation a step has several batches, and at an epoch's end fewer than others: no number of
    batches stands for a number of steps.
    """

    def __init__(self, every_n_steps: int) -> None:
        self._every_n_steps = every_n_steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._decide(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._decide(trainer, pl_module)

    def _decide(self, trainer: Trainer, pl_module: LightningModule) -> None:
        accumulation = of_ours(pl_module).accumulation
        if accumulation.num_batches == 1:
            return
        due = accumulation.between_steps and of_ours(pl_module).steps_of_stage % self._every_n_steps == 0
        trainer.val_check_batch = 1 if due else sys.maxsize  # batches: after every one, or never


class ValidationAtLastStep(Callback):
    """A stage ends with a validation, whatever the interval. Comes after ValidationInSteps."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last_epoch = trainer.max_epochs is not None and trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.global_step >= trainer.max_steps or (trainer.is_last_batch and last_epoch):
            trainer.val_check_batch, trainer.check_val_every_n_epoch = 1, None
