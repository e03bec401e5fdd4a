"""From one stage of a training to the next: what is carried over, what begins anew, and what must fit beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from config.errors import UserError
from config.freezing import frozen_modules
from config.schema import TrainConfig, ValidationConfig
from config.stages import changes, differing_stage, stage_config
from models.weights.comparison import compare
from models.weights.file import read_file
from models.weights.pretrained import Wanted, load_into, load_weights
from modules.data import EventDataModule, Split
from modules.detection import DetectionModule
from modules.run.checkpoint_file import read_checkpoint
from modules.run.class_weights import weigh_classes
from modules.run.description import describe_stage
from modules.run.meeting import together
from modules.run.processes import is_first_process
from modules.stage import Stage, size, stage_in

T = TypeVar("T")


def stage_to_resume(config: TrainConfig, checkpoint: Path | None) -> Stage:
    """The stage that a checkpoint was saved in.

    Raises UserError where the stages before it are not those that the run was trained in.
    """
    if checkpoint is None:
        return Stage(config)
    content = read_checkpoint(checkpoint)
    recorded, stages = content["config"]["training"].get("stages"), config.training.stages
    remedy = f"weights={checkpoint} starts a new run from it"
    if (recorded is None) != (stages is None):
        which = "in stages, and the config has none" if stages is None else "without stages, and the config has some"
        raise UserError(f"{checkpoint}: was trained {which} (training.stages). {remedy}")
    if stages is None:
        return Stage(config)
    stage = stage_in(config, content)
    if stage.number > stage.of:
        raise UserError(f"{checkpoint}: is of stage {stage.number}, and training.stages has {stage.of}. {remedy}")
    if (found := differing_stage(content["config"], config, stage.number - 1)) is not None:
        number, key, before, now = found
        told = f"stage {number} was trained with {key}={before}, and training.stages has {now} now"
        raise UserError(f"{checkpoint}: {told}. What has been trained cannot be changed. {remedy}")
    return stage


def about_change(before: Stage, stage: Stage) -> Iterator[str]:
    """What a stage does otherwise than the one before it."""
    yield f"\nStage {stage.number} of {stage.of} begins: steps {stage.first_step} to {stage.max_steps}"
    for key, old, new in changes(stage.run, before.number, stage.number):
        yield f"  {key}: {old} -> {new}"


def carry_over(module: DetectionModule, checkpoint: Path, stage: Stage) -> list[str]:
    """Give a stage's network the weights of the stage before; returns what to say about it."""
    config, own = stage.config, module.detector.state_dict()
    fits = compare(load_weights(checkpoint, own), own).fits
    wanted = Wanted(classes=config.dataset.classes, partial=not fits, frozen=config.training.freeze)
    notes = load_into(module.detector, config.model, checkpoint, wanted)
    kept = [f"  kept: all {len(own)} tensors of the network"] if fits else []
    average = ", the average of the weights" if config.training.ema_decay is not None else ""
    return [
        *kept,
        *notes,
        f"  begin anew: hidden states, moments of the optimizer, learning rate, best checkpoints{average}",
    ]


def check_later_stages(
    stage: Stage, open_data: Callable[[TrainConfig, tuple[Split, ...]], EventDataModule]
) -> dict[int, dict[str, Any]]:
    """Before the first step: data and network of all stages that follow.

    Returns what each of them reads, by its number. Raises UserError, which names the stage.
    """
    found: dict[int, dict[str, Any]] = {}
    before: dict[str, Tensor] = DetectionModule(stage.config).state_dict()
    while not stage.is_last:
        stage = stage.following()
        data = together(partial(named, stage, partial(open_data, stage.data_config, ("train", "val"))))
        for split in ("train", "val"):
            data.share_index(split)
        if is_first_process():
            found[stage.number] = describe_stage(stage, [data.index("train"), data.index("val")])
        before = together(partial(named, stage, partial(_check_stage, stage, data, before)))
    return found


def _check_stage(stage: Stage, data: EventDataModule, before: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's parameters, of which those of the stage before, `before`, will be kept where they fit."""
    config = stage.config
    data.training_plan()
    data.check_shared_memory("train")
    data.require_tracks()
    if config.validation.limit_val_batches:
        data.check_shared_memory("val")
    module = DetectionModule(config)
    list(weigh_classes(config, data, module))  # told when the stage begins
    own = module.state_dict()
    frozen = tuple(f"detector.{name}." for name in frozen_modules(config.training.freeze))
    new = [name for name in compare(before, own, aligned=True).new if name.startswith(frozen)] if frozen else []
    if new:
        told = f"{len(new)} tensors, {new[0]} first, would stay as they are drawn at random"
        raise UserError(f"training.freeze={','.join(config.training.freeze)}: {told}")
    return own


def named(stage: Stage, do: Callable[[], T]) -> T:
    """What is wrong with a stage says which one it is."""
    try:
        return do()
    except UserError as error:
        if not stage.is_staged:
            raise
        raise UserError(f"stage {stage.number} of {stage.of}: {error}") from error


def for_checkpoint(config: ValidationConfig) -> tuple[ValidationConfig, list[str]]:
    """The config by which a checkpoint of a run with stages is validated, and what to say about it.

    Its network is that of the stage that it was saved in. Its frames are, too, or those of `stage=NUMBER`.
    """
    if config.training.stages is None:
        return config, []
    count = len(config.training.stages)
    told: Any = read_file(config.checkpoint, trust=config.trust_checkpoint).get("stage")
    number = told.get("number") if isinstance(told, dict) else count  # one from elsewhere: as the run ends
    if not isinstance(number, int) or not 1 <= number <= count:
        raise UserError(f"{config.checkpoint}: is of stage {number}, and training.stages has {count}")
    frames_of = config.stage or number
    chosen = stage_config(config, number, frames_of)
    lines = [f"Stage {number} of {count}, on frames of {size(chosen)}, those of stage {frames_of}"]
    if config.stage is None and number < count:
        lines.append(f"stage={count} validates it on the last stage's, {size(stage_config(config, count))}")
    return chosen, lines
