"""Progress: a bar on a terminal, a plain line every 30 seconds in a log file."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.trainer.states import TrainerFn

from modules.detection import of_ours

LINE_EVERY_S = 30.0


def progress_callback() -> Callback:
    return TQDMProgressBar(refresh_rate=20) if on_a_terminal() else ProgressLines()


def on_a_terminal() -> bool:
    return sys.stderr.isatty()


class ProgressLines(Callback):
    """Prints step, speed, time left and loss; a file of 400,000 steps stays a few hundred kilobytes long."""

    def __init__(self, every_s: float = LINE_EVERY_S) -> None:
        self._every_s = every_s
        self._last_time = 0.0
        self._last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_time, self._last_step = time.monotonic(), trainer.global_step
        if trainer.is_global_zero:
            print(f"training{_of_stage(pl_module)}: step {trainer.global_step} of {trainer.max_steps}", flush=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        is_last = trainer.global_step >= trainer.max_steps
        if not trainer.is_global_zero or (now - self._last_time < self._every_s and not is_last):
            return
        steps = trainer.global_step - self._last_step
        speed = steps / (now - self._last_time)
        left = timedelta(seconds=int((trainer.max_steps - trainer.global_step) / speed)) if speed else "unknown"
        loss = trainer.callback_metrics.get("train/loss")
        print(
            f"step {trainer.global_step}/{trainer.max_steps}{_of_stage(pl_module)}  epoch {trainer.current_epoch}  "
            f"{speed:.2f} it/s  "
            f"ETA {left}  loss {float(loss):.3f}"
            if loss is not None
            else f"step {trainer.global_step}",
            flush=True,
        )
        self._last_time, self._last_step = now, trainer.global_step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            place = f" at step {trainer.global_step}" if trainer.state.fn == TrainerFn.FITTING else ""
            print(f"validating{place}: {sum(trainer.num_val_batches)} batches", flush=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = {name: trainer.callback_metrics.get(f"val/{name}") for name in ("AP", "AP_50")}
        known = [
            f"val/{name} {float(value):.4f}" if value >= 0 else f"val/{name} unknown: no labelled boxes"
            for name, value in values.items()
            if value is not None
        ]
        if trainer.is_global_zero and known:
            print("  ".join(known), flush=True)
        self._last_time, self._last_step = time.monotonic(), trainer.global_step


def _of_stage(module: LightningModule) -> str:
    """Which stage the steps and the time left are those of."""
    stage = of_ours(module).stage
    return f" of {stage}" if stage is not None and stage.is_staged else ""
