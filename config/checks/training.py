"""How a run trains and what it starts from."""

from __future__ import annotations

from collections.abc import Iterator

from config.errors import Problem
from config.names import nearest
from config.schema import Config, TrainConfig, ValidationConfig


def check_schedule(config: Config) -> Iterator[Problem]:
    schedule = config.training.lr_scheduler
    if schedule.use and schedule.total_steps < config.training.max_steps:
        yield Problem(
            "training.lr_scheduler.total_steps",
            f"is {schedule.total_steps}, less than training.max_steps={config.training.max_steps}: "
            "the schedule would end before the training",
        )


def check_validations(config: Config) -> Iterator[Problem]:
    if isinstance(config, ValidationConfig) and config.validation.limit_val_batches == 0:
        yield Problem("validation.limit_val_batches", "is 0: nothing would be measured. 1.0 takes all batches")
    if config.training.early_stopping.patience is not None and config.validation.limit_val_batches == 0:
        yield Problem(
            "training.early_stopping.patience",
            "counts validations, but validation.limit_val_batches=0 leaves them out",
        )


def check_lanes(config: Config) -> Iterator[Problem]:
    if isinstance(config, TrainConfig) and config.dataset.train.sampling == "mixed" and config.batch_size.train < 2:
        yield Problem(
            "batch_size.train",
            f"is {config.batch_size.train}, but dataset.train.sampling=mixed needs one lane of each kind: "
            "at least 2, or dataset.train.sampling=stream or random",
        )
    if config.dataset.train.sampling == "random" and config.dataset.train.repeat_threshold is not None:
        yield Problem(
            "dataset.train.repeat_threshold",
            "repeats streams, and dataset.train.sampling=random reads none; see dataset.train.random.weighted_sampling",
        )
    if config.dataset.train.sampling == "stream" and config.dataset.train.random.weighted_sampling:
        yield Problem(
            "dataset.train.random.weighted_sampling",
            "is of random chunks, and dataset.train.sampling=stream reads none; see dataset.train.repeat_threshold",
        )
    augmentation, sampling = config.dataset.data_augmentation, config.dataset.train.sampling
    for kind, other in (("random", "stream"), ("stream", "random")):
        if sampling == other and getattr(augmentation, kind).copy_paste.prob:
            yield Problem(
                f"dataset.data_augmentation.{kind}.copy_paste.prob",
                f"has no effect: dataset.train.sampling={other}; see dataset.data_augmentation.{other}.copy_paste.prob",
            )


def check_smallest_map(config: Config) -> Iterator[Problem]:
    """Batch normalisation in training takes more than one value per channel."""
    stride = config.model.backbone.stem.patch_size * 8  # of the last stage
    is_one_cell = max(config.input_hw) <= stride
    if isinstance(config, TrainConfig) and is_one_cell and config.batch_size.train == 1:
        yield Problem(
            "batch_size.train",
            f"is 1, and of {config.dataset.loaded_hw[0]} x {config.dataset.loaded_hw[1]} pixels the last stage's map "
            "is one cell: batch normalisation has one value to take a mean of. Take more lanes, or a larger resolution",
        )


def check_stage(config: ValidationConfig) -> Iterator[Problem]:
    stages = config.training.stages
    if config.stage is not None and (stages is None or config.stage > len(stages)):
        told = "training.stages is null" if stages is None else f"there are {len(stages)} in training.stages"
        yield Problem("stage", f"is {config.stage}, and {told}")


def check_start(config: TrainConfig) -> Iterator[Problem]:
    if config.resume is not None and config.weights is not None:
        yield Problem(
            "weights", "contradicts resume: resume goes on with a run, weights starts a new one. Leave one of them out"
        )


def check_weights(config: TrainConfig) -> Iterator[Problem]:
    """How to take weights says nothing where none are taken."""
    given = {"weights_classes": config.weights_classes != "same", "weights_partial": config.weights_partial}
    for key in [*(key for key, is_set in given.items() if is_set), *(["weights_key"] if config.weights_key else [])]:
        if config.weights is None:
            yield Problem(key, "tells how to take weights=FILE, and no file is given")


def check_only(config: Config) -> Iterator[Problem]:
    if config.dataset.only and isinstance(config, TrainConfig):
        yield Problem("dataset.only", "is for validation.py: a training reads its whole splits")


def check_protocols(config: ValidationConfig) -> Iterator[Problem]:
    """Names in `protocols` are of evaluation.protocols."""
    known = config.evaluation.protocols
    for name in config.protocols:
        if name not in known:
            meant = nearest(name, known)
            suggestion = f" Did you mean {meant}?" if meant else ""
            yield Problem("protocols", f"there is no {name}.{suggestion} evaluation.protocols has: {', '.join(known)}")
