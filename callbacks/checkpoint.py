"""When checkpoints are written, and which ones are kept: the last one and the best k."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn

from callbacks.faults import TooMuchDamageError
from callbacks.gradient_guard import TooManySkippedStepsError
from callbacks.signals import SignalHandling, StopRequested, is_time_to_agree
from config.errors import SharedError
from data.loader import kill_workers
from modules.boundary import BoundaryCallback
from modules.detection import of_ours
from modules.run.checkpoint_file import TEMPORARY_PREFIX, AtomicCheckpointIO
from modules.run.folder import step_of
from modules.stage import Stage

MONITOR = "AP"
BEST_NAME = re.compile(r"epoch=\d{3,}-step=\d+-val_AP=-?(\d+\.\d\d|nan)\.ckpt", re.ASCII)


class CheckpointWriter(BoundaryCallback):
    """Saves the last state on an interval, at validation, on signals and at the end, and the best states by val/AP.

    Interval checkpoints are taken between two steps, when a validation that was due there has ended: the resumed run
    neither skips it nor runs it twice.
    """

    def __init__(self, folder: Path, stage: Stage, io: AtomicCheckpointIO, signals: SignalHandling) -> None:
        self.folder = folder
        self._stage = stage
        self._config = stage.run.checkpoint
        self._io = io
        self._signals = signals
        self.best: list[dict[str, Any]] = []  # {"file", "AP", "step"}, best first
        self.last: Path | None = None
        self.of_stage: Path | None = None  # what a stage leaves, which nothing removes
        self._epoch = 0  # of the last step; Lightning's own count has moved on when an epoch or the training ends
        self._saved_step = -1
        self._saved_at = time.monotonic()
        self._failures = 0
        self._validation_pending = False

    @property
    def best_file(self) -> tuple[Path, float] | None:
        """With its AP."""
        return (self.folder / self.best[0]["file"], self.best[0]["AP"]) if self.best else None

    # --- when --------------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            for leftover in self.folder.glob(f"{TEMPORARY_PREFIX}*"):
                leftover.unlink()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch = trainer.current_epoch
        self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()
        if self._validation_pending:
            _run_missed_validation(trainer)

    def on_step_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # what loggers call the step; Lightning's count may lack one after a checkpoint that was taken at validation
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        if self._interval_is_over(trainer) or self._signals.save_requested:
            asked, self._signals.save_requested = self._signals.save_requested, False
            if self.save_last(trainer) and asked and trainer.is_global_zero:
                print(f"\nSIGUSR1: saved {self.last}", flush=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._epoch = trainer.current_epoch

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._validation_pending = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._validation_pending = False
        self._save_best(trainer)  # first, so that the last one knows it
        self.save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.save_last(trainer):
            raise SharedError(
                f"the end of the training is not saved: {self._io.error}. The last checkpoint is {self.last}"
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._validation_pending:  # the one at the very end was cut short: the resumed run had nothing to train
            pl_module.to(trainer.strategy.root_device)  # which Lightning has taken it from by now
            _run_missed_validation(trainer)
        if self._stage.is_staged and self.last is not None:
            self.of_stage = self._keep_as_stage(trainer, self.last)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # all come between two steps, when nothing is half done; but data fail in one process, and saving takes all
        data_fail = exception is self._signals.watch.failure or isinstance(exception, TooMuchDamageError)
        all_agree = isinstance(exception, StopRequested | TooManySkippedStepsError)
        # a checkpoint holds no gradients: between the batches of one step there is nothing whole to save
        between_steps = of_ours(pl_module).accumulation.between_steps
        if all_agree or (data_fail and trainer.world_size == 1 and between_steps):
            self.save_last(trainer)
        kill_workers()  # the loader's own farewell waits seconds for each that hangs

    def _interval_is_over(self, trainer: Trainer) -> bool:
        if trainer.global_step == self._saved_step:
            return False
        steps, minutes = self._config.every_n_steps, self._config.every_n_minutes
        if steps is not None and trainer.global_step % steps == 0:
            return True
        if minutes is None or not is_time_to_agree(trainer):
            return False
        by_time = time.monotonic() - self._saved_at >= 60 * minutes
        return trainer.strategy.reduce_boolean_decision(by_time, all=False)  # clocks differ between processes

    # --- how ---------------------------------------------------------------------------------------------------------

    def save_last(self, trainer: Trainer) -> bool:
        """Write last_epoch=EEE-step=S.ckpt and remove the one before it; return whether it could be written."""
        path = self.folder / f"last_epoch={self._epoch:03d}-step={trainer.global_step}.ckpt"
        self._saved_at = time.monotonic()
        if not self._save(trainer, path):
            return False
        self._saved_step = trainer.global_step
        if self.last is not None and self.last != path and trainer.is_global_zero:
            self.last.unlink(missing_ok=True)
        self.last = path
        return True

    def _keep_as_stage(self, trainer: Trainer, last: Path) -> Path:
        """Give the last checkpoint a name that the next stage leaves alone."""
        path = self.folder / name_of_stage(self._stage, self._epoch, trainer.global_step)
        error = None
        if trainer.is_global_zero:
            try:
                keep_under(last, path)
            except OSError as failure:
                error = str(failure)
        error = trainer.strategy.broadcast(error)  # nobody may read it before
        if error is not None:
            raise SharedError(f"{path}: the end of {self._stage} is not saved: {error}. The last checkpoint is {last}")
        return path

    def _save_best(self, trainer: Trainer) -> None:
        metric = trainer.callback_metrics.get(f"val/{MONITOR}")
        if metric is None or self._config.keep_best == 0:
            return
        value = float(metric)
        if not value >= 0:  # no labelled boxes to measure it on
            return
        if len(self.best) >= self._config.keep_best and value <= self.best[-1]["AP"]:
            return
        name = f"epoch={self._epoch:03d}-step={trainer.global_step}-val_AP={value:.2f}.ckpt"
        before = self.best
        entry: dict[str, Any] = {"file": name, "AP": value, "step": trainer.global_step}
        ranked = sorted([*before, entry], key=lambda e: -e["AP"])
        self.best, dropped = ranked[: self._config.keep_best], ranked[self._config.keep_best :]
        if not self._save(trainer, self.folder / name):
            self.best = before
        elif trainer.is_global_zero:
            for entry in dropped:
                (self.folder / entry["file"]).unlink(missing_ok=True)

    def _save(self, trainer: Trainer, path: Path) -> bool:
        trainer.save_checkpoint(path)
        error = trainer.strategy.broadcast(None if self._io.error is None else str(self._io.error))
        if error is None:
            self._failures = 0
            return True
        self._failures += 1
        rank_zero_warn(
            f"CHECKPOINT NOT SAVED ({self._failures} in a row): {path}: {error}. The one before it stays: {self.last}. "
            "Free some disk space or make the folder writable; training goes on."
        )
        if self._failures >= self._config.max_failures:
            raise SharedError(f"{path}: {self._failures} checkpoints in a row could not be written: {error}")
        return False

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "validation_pending": self._validation_pending, "epoch": self._epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = []
        once = {entry["file"]: entry for entry in state_dict["best"]}  # a second entry's end would remove the first's
        for entry in once.values():
            if BEST_NAME.fullmatch(entry["file"]) is None:  # it will be joined to the folder and removed
                rank_zero_warn(f"the checkpoint lists {entry['file']!r} among its best: no name of ours, left alone")
            elif (self.folder / entry["file"]).is_file():
                self.best.append(entry)
        self._validation_pending = state_dict["validation_pending"]
        self._epoch = state_dict["epoch"]
        self.find_last()

    def find_last(self) -> None:
        """Take the newest last_*.ckpt of the folder for the one that the next will replace."""
        self.last = newest_last(self.folder)


def name_of_stage(stage: Stage, epoch: int, step: int) -> str:
    """Of the last checkpoint of a stage."""
    return f"stage={stage.number}_epoch={epoch:03d}-step={step}.ckpt"


def keep_under(checkpoint: Path, path: Path) -> None:
    """A second name for the same file, or a copy where the file system knows no such names."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(checkpoint)
    except OSError:
        shutil.copyfile(checkpoint, temporary)
    temporary.replace(path)
    temporary.unlink(missing_ok=True)  # replacing a file by itself does nothing


def newest_last(folder: Path) -> Path | None:
    """Return the last_*.ckpt with the highest step, or None."""
    return max(folder.glob("last_*.ckpt"), key=step_of, default=None)


def _run_missed_validation(trainer: Trainer) -> None:
    """Make up for a validation that a stop cut short: Lightning would skip it on resume."""
    validation = trainer.fit_loop.epoch_loop.val_loop
    trainer.validating = True
    validation.restarting = False
    validation.run()
    trainer.training = True
    # else it passes for the validation at the end of the coming epoch, which would be over before its first step
    validation._has_run = False
    validation.reset_restart_stage()
