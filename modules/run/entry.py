"""Composition root of train.py and validation.py: from a checked config to a finished run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from callbacks.checkpoint import CheckpointWriter
from callbacks.faults import CompleteEvaluation
from callbacks.run_record import StoredResults
from callbacks.signals import SignalHandling, StopRequested, ends_on_a_signal
from callbacks.under_way import UnderWay
from callbacks.visualization import DetectionPictures
from config.errors import SharedError, UserError
from config.hardware import Device
from config.schema import TrainConfig, ValidationConfig
from data.loader import LoaderWatch, explain_loader_failure, is_loader_failure, kill_workers
from modules.data import EventDataModule, Split, data_of
from modules.detection import DetectionModule, callbacks_of, of_ours
from modules.evaluation.variants import Variants
from modules.pictures.figures import write_confusion_matrix
from modules.reports.protocols import protocols_table
from modules.run.course import Course
from modules.run.description import describe_split, describe_stage, describe_stages, write_description
from modules.run.disk import room_for_results
from modules.run.folder import RunFolder, run_of_checkpoint
from modules.run.loggers import build_loggers
from modules.run.meeting import company, together
from modules.run.preflight import check_training
from modules.run.preparation import load_weights, open_data, prepare, with_seed
from modules.run.processes import is_first_process, is_lightnings_child, leave_group, share
from modules.run.requeue import slurm_job
from modules.run.resuming import (
    leave_later_history_behind,
    nothing_to_do,
    open_run,
)
from modules.run.stages import check_later_stages, for_checkpoint, stage_to_resume
from modules.run.start import device_of, fellows_of, prepare_process, say
from modules.run.summary import print_training_summary, print_validation_summary
from modules.run.trainer import evaluation_trainer
from modules.run.writing import goes_on_without
from modules.stage import Stage


def train(config: TrainConfig, argv: list[str]) -> int:
    """Train a run from its first step, or from where it stopped; return the exit code.

    Args:
        config: the checked config.
        argv: the command as typed, for command.txt.
    """
    signals = SignalHandling(LoaderWatch(), requeue=config.training.requeue)
    signals.install()
    prepare_process()
    with fellows_of(argv):
        return _train(config, argv, signals)


def _train(config: TrainConfig, argv: list[str], signals: SignalHandling) -> int:
    device = device_of(config)
    if config.check:
        return check_training(config, device, argv)
    run, checkpoint = open_run(config, argv)
    stage = stage_to_resume(config, checkpoint)
    finished = nothing_to_do(stage, run, checkpoint) if checkpoint is not None else None
    if finished is not None and stage.is_last:
        signals.uninstall()
        say(finished)
        return 0
    if config.training.requeue and slurm_job() is None:
        say("training.requeue=true, but this is no SLURM job: nothing will start it again")
    say(*device.notes, f"Run folder: {run.path}", *([f"Going on from {checkpoint}"] if checkpoint else []))
    config = with_seed(config, checkpoint)
    stage = replace(stage, run=config)

    description = _Description(run, argv, config, device)
    with run.kept_if_the_start_works() if is_first_process() else contextlib.nullcontext():
        if not stage.is_last:
            description.read |= check_later_stages(stage, open_data)
        prepared = prepare(stage, run, signals.watch, resumed=checkpoint) if finished is None else None
        if checkpoint is None and prepared is not None:
            description.write(prepared[0], stage)
    later = partial(prepare, run=run, watch=signals.watch)
    course = Course(device, run, signals, build_loggers(config, run), later)
    more = [UnderWay(partial(description.write_resumed, checkpoint))] if checkpoint is not None else []
    status = _fit(signals, run, lambda: course.train(stage, prepared, checkpoint, more))
    leave_group(course.launcher)
    if is_first_process():
        with goes_on_without("the summary", f"everything is in {run.path}"):
            print_training_summary(run, course.outcome, argv)
    return status


@dataclass
class _Description:
    """Writes what the run is into its folder: before a new one's first step, and once a resumed one is under way.

    Attributes:
        read: what each stage that is still to be trained reads, by its number.
    """

    run: RunFolder
    argv: list[str]
    config: TrainConfig
    device: Device
    read: dict[int, dict[str, Any]] = field(default_factory=dict)

    def write(self, data: EventDataModule, stage: Stage) -> None:
        if is_first_process():
            self.read[stage.number] = describe_stage(stage, [data.index("train"), data.index("val")])
            told = describe_stages(self.run.path, self.read) if stage.is_staged else self.read[stage.number]
            write_description(self.run.path, self.argv, self.config, self.device, told)

    def write_resumed(self, checkpoint: Path, trainer: Trainer) -> None:
        leave_later_history_behind(self.run, checkpoint, trainer.loggers)
        for callback in callbacks_of(trainer):
            if isinstance(callback, CheckpointWriter):
                callback.find_last()
        stage = of_ours(trainer.lightning_module).stage
        assert stage is not None, "a training's module has one"
        self.write(data_of(trainer), stage)


def _fit(signals: SignalHandling, run: RunFolder, fit: Callable[[], None]) -> int:
    """Train until the end, a signal or the loader's failure; return the exit code."""
    try:
        with _refusals_as_user_errors():
            fit()
    except StopRequested as stop:
        is_saved = any(run.checkpoints.glob("*.ckpt"))
        say(f"\n{stop}; " + (f"go on with resume={run.run_id}" if is_saved else "no checkpoint could be written"))
        return stop.exit_code if not is_lightnings_child() else 0  # else Lightning kills the first in its farewell
    except SharedError:
        if is_lightnings_child():
            return 0
        raise
    except RuntimeError as error:
        if not is_loader_failure(error):
            raise
        explained = explain_loader_failure(error)
        print(f"\n{explained}\nGo on with resume={run.run_id}", file=sys.stderr, flush=True)
        if (fellows := company()) is not None:
            fellows.farewell(explained.splitlines()[0])
        return 1
    finally:
        signals.uninstall()
        kill_workers()
    return 0


def validate(config: ValidationConfig, argv: list[str]) -> int:
    """Measure a checkpoint on the validation or test split; return the exit code."""
    prepare_process()
    with fellows_of(argv):
        return _validate(config, argv)


def _validate(config: ValidationConfig, argv: list[str]) -> int:
    device = device_of(config)
    config, notes = together(lambda: for_checkpoint(config))
    say(*device.notes, *notes)
    split: Split = "test" if config.use_test_set else "val"
    data = together(lambda: open_data(config, (split,)))
    data.share_index(split)

    def make() -> DetectionModule:
        data.check_shared_memory(split)
        module = DetectionModule(config)
        load_weights(module, config.checkpoint, config)
        return module

    module = together(make)
    folder = Path(share("VALIDATION_FOLDER", lambda: str(_validation_folder(config))))
    if is_first_process():
        index = data.index(split)
        write_description(folder, argv, config, device, {split: describe_split(index)})
        say(*room_for_results(folder, len(index.label_frame)))
    settings = config.logging.validation.high_dim
    module.variants = Variants(config.dataset, config.evaluation, config.model.postprocess)
    stored = StoredResults(folder, config)
    pictures = DetectionPictures(folder / "pictures", settings.n_samples, config.dataset)
    callbacks: list[Callback] = [CompleteEvaluation(), stored, *([pictures] if settings.enable else [])]
    trainer = evaluation_trainer(config, device, callbacks)
    loop = trainer.test if config.use_test_set else trainer.validate
    with ends_on_a_signal(), _refusals_as_user_errors():
        loop(module, datamodule=data, verbose=False)
    leave_group(trainer.strategy.launcher)
    if is_first_process():
        assert module.result is not None, "the loop has ended"
        with goes_on_without(folder / "confusion_matrix"):
            write_confusion_matrix(module.result.confusion, folder / "confusion_matrix")
        with goes_on_without("the table of results", f"{folder}/results.json has them"):
            print_validation_summary(module.result, folder, protocols_table(stored.protocols, config.evaluation))
        if module.variants.too_many:
            say("Too many predictions to keep those under the thresholds of other protocols: is the network trained?")
        stored.raise_if_lost()
    return 0


@contextlib.contextmanager
def _refusals_as_user_errors() -> Generator[None]:
    """Lightning refuses some settings only when it sees the loader: a fraction of its batches that makes none.

    PyTorch refuses a batch with one labelled frame whose smallest map is one cell.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(str(error)) from error
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        raise UserError(
            "batch normalisation has one value to take a mean of: a batch had one labelled frame, and its smallest map "
            "is one cell. Take a larger batch_size.train, or a larger resolution"
        ) from error


def _validation_folder(config: ValidationConfig) -> Path:
    """Make a new folder under the run of the checkpoint, or beside runs for a checkpoint from elsewhere."""
    run = run_of_checkpoint(config.checkpoint)
    split = "test" if config.use_test_set else "val"
    parent = run.path if run is not None else config.run_root.expanduser() / config.wandb.project_name
    name = f"validation_{split}_{config.checkpoint.stem}"
    for attempt in range(1, 10_000):
        folder = parent / (name if attempt == 1 else f"{name}_{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("ten thousand validations of one checkpoint")
