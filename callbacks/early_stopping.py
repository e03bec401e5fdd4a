"""Early stopping: the run ends when validations have not become better for a while."""

from __future__ import annotations

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.run_record import RunRecord
from config.schema import EarlyStoppingConfig
from modules.detection import callbacks_of
from modules.early_stopping import reason_to_stop


class EarlyStopping(Callback):
    """Has the training end after a validation. Comes after the record, whose history is all that it knows.

    So a resumed run goes on to count where it stopped, under the settings of now.
    """

    def __init__(self, config: EarlyStoppingConfig, record: RunRecord) -> None:
        self._config = config
        self._record = record
        self.reason: str | None = None  # to have stopped

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        reason = reason_to_stop(self._record.history, self._config)
        if reason is None or trainer.sanity_checking:
            return
        self.reason = reason
        trainer.should_stop = True
        if trainer.is_global_zero:
            print(f"Early stopping: {reason}", flush=True)


def stopped_early(trainer: Trainer) -> str | None:
    """Why a training has ended before its last step; None if it has not."""
    return next((each.reason for each in callbacks_of(trainer) if isinstance(each, EarlyStopping)), None)
