"""Composition root of train.py and validation.py: from a checked config to a finished run."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from pathlib import Path

from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from callbacks.checkpoint import CheckpointWriter
from callbacks.faults import CompleteEvaluation
from callbacks.run_record import StoredResults
from callbacks.signals import SignalHandling, StopRequested, ends_on_a_signal
from callbacks.under_way import UnderWay
from callbacks.visualization import DetectionPictures
from config.errors import SharedError, UserError
from config.hardware import Device
from config.launch import read_launch
from config.schema import Config, TrainConfig, ValidationConfig
from data.checks.dataset import require_usable
from data.loader import LoaderWatch, explain_loader_failure, is_loader_failure, kill_workers
from models.weights.pretrained import Wanted, load_into
from modules.data import EventDataModule, Split, data_of
from modules.detection import DetectionModule, callbacks_of
from modules.evaluation.variants import Variants
from modules.pictures.figures import write_confusion_matrix
from modules.reports.protocols import protocols_table
from modules.run.checkpoint_check import check_resumable
from modules.run.class_weights import weigh_classes
from modules.run.course import Course
from modules.run.description import write_description
from modules.run.folder import RunFolder, run_of_checkpoint
from modules.run.loggers import build_loggers
from modules.run.meeting import company, together
from modules.run.preflight import check_disk_space, check_run, room_for_results
from modules.run.processes import is_first_process, is_lightnings_child, leave_group, share
from modules.run.requeue import slurm_job
from modules.run.resuming import (
    about_average,
    check_frozen_parts,
    kept_seed,
    leave_later_history_behind,
    nothing_to_do,
    open_run,
)
from modules.run.stages import carry_over, check_later_stages, for_checkpoint, stage_to_resume
from modules.run.start import device_of, fellows_of, prepare_process, say
from modules.run.summary import print_training_summary, print_validation_summary
from modules.run.trainer import evaluation_trainer
from modules.run.writing import goes_on_without
from modules.stage import Stage, size


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
        return _check(config, device, argv)
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
    config = _with_seed(config, checkpoint)
    stage = replace(stage, run=config)

    def record(data: EventDataModule) -> None:
        if is_first_process():
            write_description(run.path, argv, config, device, [data.index("train"), data.index("val")])

    def record_resumed(trainer: Trainer, checkpoint: Path) -> None:
        leave_later_history_behind(run, checkpoint, trainer.loggers)
        for callback in callbacks_of(trainer):
            if isinstance(callback, CheckpointWriter):
                callback.find_last()
        record(data_of(trainer))

    with run.kept_if_the_start_works() if is_first_process() else contextlib.nullcontext():
        if not stage.is_last:
            check_later_stages(stage, _open_data)
        prepared = _prepare(stage, run, signals.watch, resumed=checkpoint) if finished is None else None
        if checkpoint is None and prepared is not None:
            record(prepared[0])
    later = partial(_prepare, run=run, watch=signals.watch)
    course = Course(device, run, signals, build_loggers(config, run), later)
    more = [UnderWay(partial(record_resumed, checkpoint=checkpoint))] if checkpoint is not None else []
    status = _fit(signals, run, lambda: course.train(stage, prepared, checkpoint, more))
    leave_group(course.launcher)
    if is_first_process():
        with goes_on_without("the summary", f"everything is in {run.path}"):
            print_training_summary(run, course.outcome, argv)
    return status


def _open_data(config: Config, splits: tuple[Split, ...], watch: LoaderWatch | None = None) -> EventDataModule:
    if read_launch().local_rank == 0:  # the others of its node would read the same
        damaged = config.training.max_damaged_chunks if isinstance(config, TrainConfig) else 0
        require_usable(config.dataset, splits, max_damaged_chunks=damaged)
    return EventDataModule(config, watch)


def _prepare(
    stage: Stage, run: RunFolder, watch: LoaderWatch, resumed: Path | None = None, earlier: Path | None = None
) -> tuple[EventDataModule, DetectionModule]:
    """What trains a stage, from the checkpoint that it resumes from, or from the last one of the stage before.

    Everything that may be found wrong before the run folder is touched.
    """
    if stage.is_staged:
        seed_everything(stage.seed, verbose=False)
    data = together(lambda: _open_data(stage.data_config, ("train", "val"), watch))
    for split in ("train", "val"):
        data.share_index(split)
    return data, together(lambda: _make_module(stage, run, data, resumed, earlier))


def _make_module(
    stage: Stage, run: RunFolder, data: EventDataModule, resumed: Path | None, earlier: Path | None
) -> DetectionModule:
    config = stage.config
    module = DetectionModule(config, stage)
    say(*weigh_classes(config, data, module))
    if earlier is not None:
        say(*carry_over(module, earlier, stage))
    elif config.weights is not None:
        _load_weights(module, config.weights, config)
    if config.training.freeze:
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        total = sum(p.numel() for p in module.parameters())
        say(f"Frozen: {', '.join(config.training.freeze)}; {trained:,} of {total:,} parameters are trained")
    if resumed is not None:
        check_frozen_parts(config, resumed)
        say(*about_average(config, resumed))
        check_resumable(resumed, module)
    data.check_shared_memory("train")
    data.require_tracks()
    if config.validation.limit_val_batches:
        data.check_shared_memory("val")
    already_there = len(list(run.checkpoints.glob("*.ckpt")))
    check_disk_space(config, module, already_there, more_stages=stage.of - stage.number)
    return module


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
    data = together(lambda: _open_data(config, (split,)))
    data.share_index(split)

    def prepare() -> DetectionModule:
        data.check_shared_memory(split)
        module = DetectionModule(config)
        _load_weights(module, config.checkpoint, config)
        return module

    module = together(prepare)
    folder = Path(share("VALIDATION_FOLDER", lambda: str(_validation_folder(config))))
    if is_first_process():
        index = data.index(split)
        write_description(folder, argv, config, device, [index])
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


def _check(config: TrainConfig, device: Device, argv: list[str]) -> int:
    say(*device.notes)
    stage, hours = Stage(_with_seed(config, checkpoint=None)), 0.0
    while True:
        config = stage.config
        if stage.is_staged:
            say(f"\nStage {stage.number} of {stage.of}, on frames of {size(config)}")
            seed_everything(stage.seed, verbose=False)
        require_usable(config.dataset, max_damaged_chunks=config.training.max_damaged_chunks)
        data, module = EventDataModule(stage.data_config), DetectionModule(config, stage)
        say(*weigh_classes(config, data, module))
        data.require_tracks()
        hours += check_run(config, device, data, module, argv, stages=stage.of)
        if stage.is_last:
            break
        stage = stage.following()
    if stage.is_staged:
        say(f"\nAll {stage.of} stages: about {hours:.1f} h, without validation")
    return 0


def _load_weights(module: DetectionModule, path: Path, config: Config) -> None:
    for line in load_into(module.detector, config.model, path, Wanted.of(config)):
        say(line)


def _with_seed(config: TrainConfig, checkpoint: Path | None) -> TrainConfig:
    """Draw a seed where none is set, or take the resumed run's, so that the config names what was used."""
    seed = config.reproduce.seed_everything
    if seed is None:
        kept = kept_seed(checkpoint)
        seed = share("SEED", lambda: secrets.randbelow(2**31)) if kept is None else kept
    seed_everything(seed, verbose=False)
    reproduce = config.reproduce.model_copy(update={"seed_everything": seed})
    return config.model_copy(update={"reproduce": reproduce})


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
