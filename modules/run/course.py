"""The course of a training: one stage after the other, in one run folder, with one count of steps and one record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import Logger

from callbacks.checkpoint import CheckpointWriter, keep_under, name_of_stage
from callbacks.early_stopping import stopped_early
from callbacks.faults import DamageCounter
from callbacks.requeue import Requeue
from callbacks.run_record import RunRecord, note_end_between_stages
from callbacks.signals import SignalHandling
from config.hardware import Device
from config.stages import stage_config
from data.loader import kill_workers
from models.weights.pretrained import load_into
from modules.data import EventDataModule
from modules.detection import DetectionModule, of_ours
from modules.run.checkpoint_file import read_checkpoint
from modules.run.folder import RunFolder
from modules.run.loggers import expect_more
from modules.run.meeting import company
from modules.run.processes import is_first_process
from modules.run.stages import about_change
from modules.run.start import say
from modules.run.summary import Outcome
from modules.run.trainer import evaluation_trainer, training_trainer
from modules.stage import Stage, size

Prepared = tuple[EventDataModule, DetectionModule]


class _StageBefore(Callback):
    """Logs what the stage before has come to on the last one's frames, at the first step that comes after it.

    Not at once: where a run goes on from a stage's end, what is logged of later steps is dropped at the first step.
    """

    def __init__(self, record: RunRecord) -> None:
        found = record.stages[-1]["at_last_stage"] if record.stages else None
        self._metrics = {f"val_at_last_stage/{name}": value for name, value in (found or {}).items()}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not of_ours(pl_module).accumulation.between_steps:
            return
        metrics, self._metrics = {name: value for name, value in self._metrics.items() if value is not None}, {}
        for logger in trainer.loggers if metrics else ():
            logger.log_metrics(metrics, trainer.global_step - 1)


class Course:
    """Trains from some stage to the end of the last one.

    Attributes:
        trainer, writer: of the stage that is trained, or was last.
        launcher: what has started other processes, if Lightning has.
        record: of the whole run.
    """

    def __init__(
        self,
        device: Device,
        run: RunFolder,
        signals: SignalHandling,
        loggers: list[Logger],
        prepare: Callable[..., Prepared],
    ) -> None:
        """`prepare(stage, earlier=PATH)` makes what trains a stage, from the last checkpoint of the one before."""
        self.trainer: Trainer | None = None
        self.writer: CheckpointWriter | None = None
        self.launcher: Any = None
        self.record = RunRecord(signals.watch)
        self._device, self._run, self._signals, self._loggers = device, run, signals, loggers
        self._prepare = prepare

    def train(
        self, stage: Stage, prepared: Prepared | None, checkpoint: Path | None, more: Sequence[Callback] = ()
    ) -> None:
        """Train a stage and those after it.

        Args:
            prepared: what trains the stage; None: it has ended, with `checkpoint`, and the one after it is next.
            checkpoint: where to go on within the stage.
            more: callbacks of the first Trainer.
        """
        if prepared is None:
            assert checkpoint is not None, "what has ended has left one"
            self.record.load_state_dict(read_checkpoint(checkpoint)["callbacks"]["RunRecord"])
            stage, prepared = self.next_stage(stage, checkpoint)
            checkpoint = None
        while True:
            data, module = prepared
            callbacks = [*more, *([_StageBefore(self.record)] if checkpoint is None else [])]
            trainer, writer = self.trainer, self.writer = training_trainer(
                stage, self._device, self._run, self._signals, self.record, self._loggers, callbacks
            )
            self._tell_fellows(writer)
            expect_more(self._loggers, not stage.is_last)
            self.launcher = self.launcher or trainer.strategy.launcher  # later ones find the processes there
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
            if stage.is_last:
                return
            kill_workers()
            left = writer.of_stage
            assert left is not None, "a stage leaves its last checkpoint"
            self.trainer = None
            del data, module, prepared, trainer  # memory is for one stage at a time
            stage, prepared = self.next_stage(stage, left)
            checkpoint, more = None, ()

    @property
    def outcome(self) -> Outcome:
        if self.writer is None:
            return Outcome(stages=self.record.stages)
        why = stopped_early(self.trainer) if self.trainer is not None else None
        return Outcome(self.writer.best_file, self.writer.last, why, self.record.stages)

    def next_stage(self, stage: Stage, last: Path) -> tuple[Stage, Prepared]:
        """What follows a stage that has ended with a checkpoint, which may have been before this process began."""
        with self._closing_records():
            content = read_checkpoint(last)
            step, epoch = content["global_step"], content["callbacks"]["CheckpointWriter"]["epoch"]
            left = last.with_name(name_of_stage(stage, epoch, step))
            if is_first_process() and not left.is_file():
                keep_under(last, left)
            self.record.end_stage(stage, step, left, self._on_last_frames(stage, last))
            following = stage.following(step)
            say(*about_change(stage, following))
            return following, self._prepare(following, earlier=last)

    def _on_last_frames(self, stage: Stage, checkpoint: Path) -> dict[str, float | None] | None:
        """Metrics of a stage's last checkpoint on the frames of the last stage; None where they are its own."""
        config = stage_config(stage.run, stage.number, frames_of=stage.of)
        if config.dataset.loaded_hw == stage.config.dataset.loaded_hw or not config.validation.limit_val_batches:
            return None
        say(f"\nThe last checkpoint of {stage}, on the last stage's frames of {size(config)}:")
        module = DetectionModule(config)
        load_into(module.detector, config.model, checkpoint)
        damage = DamageCounter(self._run.path / "damaged_chunks.txt", config.training.max_damaged_chunks)
        requeue = [Requeue(self._run.run_id, lambda: checkpoint)] if config.training.requeue else []
        trainer = evaluation_trainer(config, self._device, [self._signals, damage, *requeue])
        data = EventDataModule(config, self._signals.watch)
        data.share_index("val")
        trainer.validate(module, datamodule=data, verbose=False)
        kill_workers()
        assert module.result is not None, "the loop has ended"
        metrics = {name: float(value) for name, value in module.result.metrics.items() if "/" not in name}
        return {name: value if value >= 0 else None for name, value in metrics.items()}

    def _tell_fellows(self, writer: CheckpointWriter) -> None:
        fellows = company()
        if fellows is not None:
            fellows.hint = lambda: (
                f"The last checkpoint counts, {writer.last}: go on with resume={self._run.run_id}"
                if writer.last
                else "There is no checkpoint yet"
            )

    @contextlib.contextmanager
    def _closing_records(self) -> Generator[None]:
        """What fails between two trainings is not seen by Lightning, which ends the records of what fails in one."""
        try:
            yield
        except BaseException as error:
            note_end_between_stages(self._run, error)
            for logger in self._loggers:
                logger.finalize("failed")
            raise
