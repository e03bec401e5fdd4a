"""Checks between fields of a configuration: settings that are each allowed, but contradict each other."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from config.composition import MISSING
from config.errors import Problem, UserError
from config.freezing import check_freeze
from config.hardware import count_gpus, decide_device
from config.inherited import check_class_names
from config.schema import (
    Config,
    DatasetConfig,
    LossWeightsConfig,
    ModelConfig,
    TrainConfig,
    ValidationConfig,
    representation_of,
)
from config.search_path import SearchPath

PATCH_SIZES = (4, 2)
WANDB_MODES = ("online", "offline", "disabled", "dryrun", "run", "shared")
FPN_STAGES = ((2, 3, 4), (1, 2, 3, 4))

Check = Callable[..., Iterator[Problem]]
SectionCheck = tuple[tuple[str, ...], Check]  # the sections that a check reads


def bare_sections(raw: dict[str, Any]) -> list[str]:
    """Parts of the network that a skeleton such as model=rnndet leaves open."""
    model = raw.get("model")
    if not isinstance(model, dict):
        return []
    parts = {part: model.get(part) for part in ("backbone", "fpn", "head")}
    return [
        f"model.{part}"
        for part, settings in parts.items()
        if not isinstance(settings, dict) or settings.get("name", MISSING) == MISSING
    ]


def skeleton_problem(bare: Sequence[str], search: SearchPath) -> Problem:
    """What is missing, and all that would fill it."""
    lines = [f"is a skeleton: {', '.join(bare)} missing. Choose a complete model"]
    lines += [search.listing("model", complete_only=True), "  or an experiment, which brings one", search.experiments()]
    return Problem("model", "\n".join(lines))


def check_dataset_settings(dataset: DatasetConfig) -> Iterator[Problem]:
    """Names of classes, representation, augmentation ranges."""
    twice = sorted({name for name in dataset.classes if dataset.classes.count(name) > 1})
    if twice:
        yield Problem("dataset.classes", f"names twice: {', '.join(twice)}")
    yield from check_class_names(dataset)
    yield from _check_representation(dataset)
    yield from _check_augmentation(dataset)


def check_model(model: ModelConfig) -> Iterator[Problem]:
    """Attention heads must divide the channels of every stage; a map must keep its size."""
    stage = model.backbone.stage
    lstm = stage.lstm
    if ":" not in stage.cell and stage.cell_options:
        yield Problem(
            "model.backbone.stage.cell_options",
            f"are those of a cell of your own; cell={stage.cell} has the section model.backbone.stage.{stage.cell}",
        )
    if ":" not in stage.cell and getattr(stage, stage.cell) is None:
        yield Problem(
            f"model.backbone.stage.{stage.cell}",
            f"is missing: model.backbone.stage.cell={stage.cell} reads its settings there. Take the section from "
            "config/model/maxvit_yolox/default.yaml",
        )
    loss = model.loss
    if ":" not in loss.name and loss.options:
        message = f"are those of a loss of your own; name={loss.name} has model.loss.weights"
        yield Problem("model.loss.options", message)
    if ":" in loss.name and loss.weights != LossWeightsConfig():
        yield Problem("model.loss.weights", f"are those of name=yolox; {loss.name} has model.loss.options")
    if lstm is not None and lstm.dws_conv and lstm.dws_conv_kernel_size % 2 == 0:
        yield Problem(
            "model.backbone.stage.lstm.dws_conv_kernel_size",
            f"{lstm.dws_conv_kernel_size} is even: only an odd kernel keeps the size of the hidden state",
        )
    if model.backbone.stem.patch_size not in PATCH_SIZES:
        yield Problem(
            "model.backbone.stem.patch_size",
            f"is {model.backbone.stem.patch_size}; 4 (RVT's) or 2. Another stride makes maps that do not divide into "
            "whole attention windows",
        )
    if model.fpn.in_stages not in FPN_STAGES:
        yield Problem(
            "model.fpn.in_stages",
            f"is {list(model.fpn.in_stages)}; {' or '.join(str(list(stages)) for stages in FPN_STAGES)}",
        )
    dim_head = model.backbone.stage.attention.dim_head
    for dim in model.backbone.stage_dims:
        if dim % dim_head:
            yield Problem(
                "model.backbone.stage.attention.dim_head",
                f"{dim_head} does not divide the {dim} channels of a stage "
                f"(model.backbone.embed_dim={model.backbone.embed_dim})",
            )
            return


def check_network_input(config: Config) -> Iterator[Problem]:
    """Classes and channels of data and network; sizes that follow from the resolution, where they are given."""
    dataset, model = config.dataset, config.model
    num_classes = model.head.num_classes
    if num_classes is not None and num_classes != dataset.num_classes:
        yield Problem(
            "model.head.num_classes",
            f"is {num_classes}, but dataset={dataset.name} has {dataset.num_classes} classes: "
            f"{', '.join(dataset.classes)}.\nmodel.head.num_classes=null takes the data set's",
        )
    if model.backbone.input_channels != dataset.channels:
        yield Problem(
            "model.backbone.input_channels",
            f"is {model.backbone.input_channels}, but frames have {dataset.channels} channels "
            f"(2 * dataset.representation.bins={dataset.representation.bins})",
        )
    given = {
        "model.backbone.in_res_hw": (model.backbone.in_res_hw, config.input_hw),
        "model.backbone.stage.attention.partition_size": (
            model.backbone.stage.attention.partition_size,
            config.partition_size,
        ),
    }
    for key, (stated, computed) in given.items():
        if stated is not None and stated != computed:
            yield Problem(
                key,
                f"is {list(stated)}, but dataset.resolution_hw={list(dataset.resolution_hw)}, "
                f"dataset.downsample_by_factor_2={str(dataset.downsample_by_factor_2).lower()} and "
                f"model.backbone.partition_split_32={model.backbone.partition_split_32} "
                f"make it {list(computed)}. {key}=null takes that",
            )


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


def check_smallest_map(config: Config) -> Iterator[Problem]:
    """Batch normalisation in training takes more than one value per channel."""
    stride = config.model.backbone.stem.patch_size * 8  # of the last stage
    is_one_cell = max(config.input_hw) <= stride
    if isinstance(config, TrainConfig) and is_one_cell and config.batch_size.train == 1:
        yield Problem(
            "batch_size.train",
            f"is 1, and of {config.dataset.frame_hw[0]} x {config.dataset.frame_hw[1]} pixels the last stage's map is "
            "one cell: batch normalisation has one value to take a mean of. Take more lanes, or a larger resolution",
        )


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


def check_folder(config: Config) -> Iterator[Problem]:
    path = config.dataset.path
    if not path.is_dir():
        yield Problem("dataset.path", f"{path} is not a folder{_neighbours(path)}")
    elif not any((path / split).is_dir() for split in ("train", "val", "test")):
        yield Problem(
            "dataset.path",
            f"{path} holds none of train, val, test; scripts/preprocess.py makes them from recordings",
        )


def check_checkpoints(config: Config) -> Iterator[Problem]:
    """Checkpoints named by path must exist; `resume` may also be `latest` or a run id."""
    paths: dict[str, Path | None] = {}
    if isinstance(config, ValidationConfig):
        paths["checkpoint"] = config.checkpoint
    if isinstance(config, TrainConfig):
        paths["weights"] = config.weights
        is_path = config.resume is not None and ("/" in config.resume or config.resume.endswith(".ckpt"))
        paths["resume"] = Path(config.resume or "") if is_path else None
    for key, path in paths.items():
        if path is not None and not path.exists():
            yield Problem(key, f"{path} does not exist{_neighbours(path)}")


def check_devices(config: Config) -> Iterator[Problem]:
    try:
        decide_device(config.hardware.gpus, None, count_gpus())
    except UserError as error:
        yield Problem("hardware.gpus", str(error))


def check_wandb_mode(config: Config) -> Iterator[Problem]:
    mode = os.environ.get("WANDB_MODE") or "online"
    if "wandb" in config.loggers and mode not in WANDB_MODES:
        yield Problem("WANDB_MODE", f"is {mode!r} in the environment; allowed: {', '.join(WANDB_MODES)}")


# A check runs if the sections it reads are valid, so that one mistake does not hide another.
CHECKS: tuple[SectionCheck, ...] = (
    (("dataset",), lambda config: check_dataset_settings(config.dataset)),
    (("model",), lambda config: check_model(config.model)),
    (("dataset", "model"), check_network_input),
    (("training",), check_schedule),
    (("training", "validation"), check_validations),
    (("dataset", "batch_size"), check_lanes),
    (("dataset", "model", "batch_size"), check_smallest_map),
    (("resume", "weights"), check_start),
    (("weights", "weights_classes", "weights_partial", "weights_key"), check_weights),
    (("training", "resume", "weights"), check_freeze),
)
# What depends on the machine is checked by the entry points only.
MACHINE_CHECKS: tuple[SectionCheck, ...] = (
    (("dataset",), check_folder),
    (("checkpoint",), check_checkpoints),
    (("hardware",), check_devices),
    (("logger",), check_wandb_mode),
)


def _check_representation(dataset: DatasetConfig) -> Iterator[Problem]:
    told, stated = representation_of(dataset.ev_repr_name), dataset.representation
    if told is None:
        yield Problem(
            "dataset.ev_repr_name",
            f"{dataset.ev_repr_name!r} is no stacked histogram; allowed: stacked_histogram_dt=<ms>_nbins=<bins>",
        )
    elif told != (stated.window_ms, stated.bins):
        yield Problem(
            "dataset.ev_repr_name",
            f"{dataset.ev_repr_name!r} says {told[0]} ms and {told[1]} bins, but dataset.representation says "
            f"window_ms={stated.window_ms}, bins={stated.bins}",
        )


def _check_augmentation(dataset: DatasetConfig) -> Iterator[Problem]:
    for kind, settings in (("random", dataset.data_augmentation.random), ("stream", dataset.data_augmentation.stream)):
        key = f"dataset.data_augmentation.{kind}"
        if settings.rotate.min_angle_deg > settings.rotate.max_angle_deg:
            yield Problem(f"{key}.rotate.min_angle_deg", "is greater than max_angle_deg")
        for direction in ("zoom_in", "zoom_out"):
            zoom = getattr(settings.zoom, direction)
            if zoom is not None and zoom.factor.min > zoom.factor.max:
                yield Problem(f"{key}.zoom.{direction}.factor.min", "is greater than max")
    if dataset.data_augmentation.stream.zoom.zoom_in is not None:
        yield Problem(
            "dataset.data_augmentation.stream.zoom.zoom_in",
            "streams only zoom out: a window to zoom into would have to be chosen before later boxes are known",
        )


def _neighbours(path: Path) -> str:
    """What the deepest folder that exists holds instead, the most similar names first."""
    parent = next((parent for parent in path.absolute().parents if parent.is_dir()), None)
    if parent is None:
        return ""
    try:
        entries = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
    except OSError:
        return ""
    similar = difflib.get_close_matches(path.absolute().relative_to(parent).parts[0], entries)
    entries = [*similar, *(entry for entry in entries if entry not in similar)]
    shown = ", ".join(entries[:6]) + (", ..." if len(entries) > 6 else "")
    return f"; {parent} holds {shown or 'nothing'}"
