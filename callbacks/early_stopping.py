"""Early stopping: the run ends when validations have not become better for a while."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn

from callbacks.run_record import RunRecord
from modules.detection import callbacks_of
from modules.early_stopping import is_measured, reason_to_stop, validations_of
from modules.stage import Stage


class EarlyStopping(Callback):
    """Has the training end after a validation. Comes after the record, whose history is all that it knows.

    So a resumed run goes on to count where it stopped, under the settings of now. Validations of earlier stages, of
    frames of another size, do not count.
    """

    def __init__(self, stage: Stage, record: RunRecord) -> None:
        self._config = stage.config.training.early_stopping
        self._stage = stage
        self._record = record
        self.reason: str | None = None  # to have stopped

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._tell_if_never_measured(trainer)
        reason = reason_to_stop(self._history, self._config)
        if reason is None:
            return
        self.reason = reason
        trainer.should_stop = True
        if trainer.is_global_zero:
            print(f"Early stopping: {reason}", flush=True)

    @property
    def _history(self) -> list[dict[str, Any]]:
        return validations_of(self._stage, self._record.history)

    def _tell_if_never_measured(self, trainer: Trainer) -> None:
        values = [entry.get(self._config.metric) for entry in self._history]
        if self._config.patience is not None and len(values) == 1 and not is_measured(values[0]):
            told = f"val/{self._config.metric} has no value: there is no ground truth for it"
            rank_zero_warn(f"training.early_stopping will not act: {told}. Its key `metric` names another")


def stopped_early(trainer: Trainer) -> str | None:
    """Why a training has ended before its last step; None if it has not."""
    return next((each.reason for each in callbacks_of(trainer) if isinstance(each, EarlyStopping)), None)
