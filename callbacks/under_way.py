"""What a start may leave in a run's folder only once it has worked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class UnderWay(Callback):
    """Calls `record` once: after the first step, or before the first validation or checkpoint if that comes first.

    A resumed run that fails before has changed nothing: neither the command that the next `resume=` repeats, nor the
    checkpoints beyond the one that it was to go on from. Comes before the checkpoint writer.
    """

    def __init__(self, record: Callable[[Trainer], None]) -> None:
        self._record: Callable[[Trainer], None] | None = record

    def _once(self, trainer: Trainer) -> None:
        record, self._record = self._record, None
        if record is not None:
            record(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._once(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._once(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._once(trainer)
