"""Data and network of a training or a validation: all that may be found wrong before a run's folder is touched."""

from __future__ import annotations

import secrets
from pathlib import Path

from pytorch_lightning import seed_everything

from config.launch import read_launch
from config.schema import Config, TrainConfig
from data.checks.dataset import require_usable
from data.loader import LoaderWatch
from models.weights.pretrained import Wanted, load_into
from modules.data import EventDataModule, Split
from modules.detection import DetectionModule
from modules.run.checkpoint_check import check_resumable
from modules.run.class_weights import weigh_classes
from modules.run.disk import check_disk_space
from modules.run.folder import RunFolder
from modules.run.meeting import together
from modules.run.processes import share
from modules.run.repeats import about_repeats
from modules.run.resuming import about_average, check_frozen_parts, kept_seed
from modules.run.stages import carry_over
from modules.run.start import say
from modules.stage import Stage


def open_data(config: Config, splits: tuple[Split, ...], watch: LoaderWatch | None = None) -> EventDataModule:
    """Raises UserError with all that is wrong with frames and labels."""
    if read_launch().local_rank == 0:  # the others of its node would read the same
        damaged = config.training.max_damaged_chunks if isinstance(config, TrainConfig) else 0
        require_usable(config.dataset, splits, max_damaged_chunks=damaged)
    return EventDataModule(config, watch)


def open_stage(stage: Stage, watch: LoaderWatch | None = None) -> EventDataModule:
    """What a stage reads, with the random state that it begins with."""
    if stage.is_staged:
        seed_everything(stage.seed, verbose=False)
    data = together(lambda: open_data(stage.data_config, ("train", "val"), watch))
    for split in ("train", "val"):
        data.share_index(split)
    return data


def prepare(
    stage: Stage, run: RunFolder, watch: LoaderWatch, resumed: Path | None = None, earlier: Path | None = None
) -> tuple[EventDataModule, DetectionModule]:
    """What trains a stage, from the checkpoint that it resumes from, or from the last one of the stage before."""
    data = open_stage(stage, watch)

    def make() -> DetectionModule:
        module = make_module(stage, data, resumed, earlier)
        already_there = len(list(run.checkpoints.glob("*.ckpt")))
        check_disk_space(stage.config, module, already_there, more_stages=stage.of - stage.number)
        return module

    return data, together(make)


def make_module(
    stage: Stage, data: EventDataModule, resumed: Path | None = None, earlier: Path | None = None
) -> DetectionModule:
    """The network with the weights that a stage begins with. Raises UserError for all that it cannot train with."""
    config = stage.config
    module = DetectionModule(config, stage)
    say(*weigh_classes(config, data, module), *about_repeats(config, data))
    if earlier is not None:
        say(*carry_over(module, earlier, stage))
    elif config.weights is not None and stage.number == 1:
        load_weights(module, config.weights, config)
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
    return module


def load_weights(module: DetectionModule, path: Path, config: Config) -> None:
    """Give the network the weights of a file, and tell what of it was taken."""
    say(*load_into(module.detector, config.model, path, Wanted.of(config)))


def with_seed(config: TrainConfig, checkpoint: Path | None) -> TrainConfig:
    """Draw a seed where none is set, or take the resumed run's, so that the config names what was used."""
    seed = config.reproduce.seed_everything
    if seed is None:
        kept = kept_seed(checkpoint)
        seed = share("SEED", lambda: secrets.randbelow(2**31)) if kept is None else kept
    seed_everything(seed, verbose=False)
    reproduce = config.reproduce.model_copy(update={"seed_everything": seed})
    return config.model_copy(update={"reproduce": reproduce})
