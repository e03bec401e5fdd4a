"""Asks SLURM to start the job again, once what it goes on from is on the disk."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.signals import StopRequested
from modules.run.requeue import requeue

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Requeue(Callback):
    """Comes after the writer. Before WandB's farewell, which may take longer than SLURM waits."""

    def __init__(self, run_id: str, last: Callable[[], Path | None]) -> None:
        """`last` tells the checkpoint to go on from."""
        self._run_id = run_id
        self._last = last

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.is_global_zero and isinstance(exception, StopRequested) and exception.signum in SIGNALS:
            if self._last() is None:
                print("Not requeued: there is no checkpoint to go on from", flush=True)
            else:
                print(f"\n{requeue(self._run_id)}", flush=True)
