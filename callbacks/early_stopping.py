"""Early stopping: the run ends when validations have not become better for a while."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.run_record import RunRecord
from config.schema import EarlyStoppingConfig
from modules.detection import callbacks_of


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


def reason_to_stop(history: Sequence[Mapping[str, Any]], config: EarlyStoppingConfig) -> str | None:
    """Why a run with these validations, the last one included, should end; None if it should not.

    Validations without labelled boxes count neither way.
    """
    if config.patience is None:
        return None
    best, best_step, waited = -1.0, None, 0
    for entry in history:
        value = entry.get(config.metric)
        if value is None or value < 0:
            continue
        if best_step is None or value > best + config.min_delta:
            best, best_step, waited = value, entry["step"], 0
        else:
            waited += 1
    if waited < config.patience:
        return None
    more = f" by more than {config.min_delta}" if config.min_delta else ""
    times = f"{waited} validation{'s' if waited > 1 else ''}"
    return f"val/{config.metric} has not risen{more} for {times}, since {best:.4f} at step {best_step}"
