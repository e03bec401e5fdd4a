"""Stages of a training: settings laid over the config, which give each stage a whole config of its own.

A config with stages is brought into a normal form, in which each stage names every setting that differs between stages,
and the config itself has the settings of the last one: so it describes what comes out of the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from config import names
from config.checks import SectionCheck
from config.errors import Problem
from config.messages import problems_of
from config.origins import Origins
from config.remarks import FRAME_HW, HALVED, check_typed_size
from config.schema import Config
from config.sections import is_under

STAGES = "training.stages"
MAX_STEPS, TOTAL_STEPS = "training.max_steps", "training.lr_scheduler.total_steps"
MAY_CHANGE = (
    MAX_STEPS,
    *("training.learning_rate", "training.lr_scheduler", "training.weight_decay", "training.gradient_clip_val"),
    *("training.accumulate_grad_batches", "training.activation_checkpointing", "training.early_stopping"),
    *("dataset.frame_hw", "dataset.downsample_by_factor_2", "dataset.sequence_length", "dataset.train"),
    *("dataset.data_augmentation", "batch_size", "hardware.num_workers"),
    *("model.backbone.partition_split_32", "model.fpn.in_stages", "model.loss"),
    *("validation.val_check_interval", "validation.check_val_every_n_epoch", "validation.limit_val_batches"),
)
# What a network is shown in validation, and in how large pieces.
FRAMES = (
    *("dataset.frame_hw", "dataset.downsample_by_factor_2", "model.backbone.partition_split_32"),
    *("batch_size.eval", "hardware.num_workers.eval"),
)

C = TypeVar("C", bound=Config)
Settings = dict[str, Any]  # by full key, as plain values


def stage_config(config: C, number: int, frames_of: int | None = None) -> C:
    """The config of a stage, counted from 1; max_steps are its own.

    Args:
        config: in normal form.
        frames_of: the stage whose frames are to be read, where that is another one.
    """
    stages = _stages(config)
    chosen = stages[number - 1]
    if frames_of is not None:
        chosen = {**chosen, **{key: value for key, value in stages[frames_of - 1].items() if key in FRAMES}}
    return _laid_over(config, chosen)


def in_normal_form(config: C) -> C:
    """Does nothing to a config without stages. Where there are some, training.max_steps becomes their sum."""
    if config.training.stages is None:
        return config
    stages = _complete(config)
    total = sum(stage[MAX_STEPS] for stage in stages)
    nested = tuple(_nested(stage) for stage in stages)
    config = _laid_over(config, {**stages[-1], MAX_STEPS: total, TOTAL_STEPS: total})
    return config.model_copy(update={"training": config.training.model_copy(update={"stages": nested})})


def changes(config: Config, before: int, after: int) -> Iterator[tuple[str, Any, Any]]:
    """What differs, besides the number of steps, between two stages of a config in normal form: key, before, after."""
    stages = _stages(config)
    old, new = stages[before - 1], stages[after - 1]
    follows = all(stage[TOTAL_STEPS] == stage[MAX_STEPS] for stage in (old, new))
    for key, value in new.items():
        if old[key] != value and key != MAX_STEPS and not (key == TOTAL_STEPS and follows):
            yield key, old[key], value


def differing_stage(recorded: Mapping[str, Any], now: Config, count: int) -> tuple[int, str, Any, Any] | None:
    """The first of `count` stages, and the key in it with both values, that a recorded config has otherwise."""
    ours = _stages(now)
    theirs = [dict(_settings(now, stage)) for stage in recorded["training"]["stages"]]
    for number in range(count):
        before, after = (stages[number] if number < len(stages) else {} for stages in (theirs, ours))
        for key in {**before, **after}:
            values = (before.get(key, _recorded_value(recorded, key)), after.get(key, _plain_value(now, key)))
            if values[0] != values[1]:
                return number + 1, key, *values
    return None


def check_stages(config: Config, origins: Origins, checks: Sequence[SectionCheck]) -> Iterator[Problem]:
    """Mistakes in a stage, between stages, and in the config that each of them gives."""
    stages = config.training.stages
    if stages is None:
        return
    found = [Problem(f"{STAGES}.{i}.{key}", text) for i, key, text in _mistakes(config, stages, origins)]
    yield from found or (*_without_effect(config, stages, origins), *_contradictions(config, origins, checks))


def _mistakes(config: Config, stages: Sequence[Mapping[str, Any]], origins: Origins) -> Iterator[tuple[int, str, str]]:
    tree = names.key_tree(type(config))
    for i, stage in enumerate(stages):
        given = dict(_settings(config, stage))
        if MAX_STEPS not in given:
            yield i, MAX_STEPS, "is missing: each stage says how many steps it has"
        for key, value in given.items():
            dotted = any("." in name for name in _names(stage))
            if dotted:
                yield i, key, "a stage is written in sections, as in dataset: {frame_hw: [360, 640]}"
            elif not tree.knows(key):
                yield i, key, names.unknown_key_message(key, tree)
            elif not is_under(key, MAY_CHANGE):
                yield i, key, f"is the same for the whole run. A stage may set {', '.join(MAY_CHANGE)}"
            else:
                try:
                    _laid_over(config, {key: value})
                except ValidationError as error:
                    for problem in problems_of(error, key, {key: value}, tree, origins):
                        yield i, problem.key, problem.message


def _without_effect(config: Config, stages: Sequence[Mapping[str, Any]], origins: Origins) -> Iterator[Problem]:
    """What was set together with the stages, or later, and is replaced by every one of them."""
    given = [dict(_settings(config, stage)) for stage in stages]
    everywhere = [key for key in given[0] if all(key in each for each in given)]
    set_with_them = origins.rank(STAGES)
    or_choose = ", or choose: stage=1" if "stage" in type(config).model_fields else ""
    for key in dict.fromkeys([*everywhere, TOTAL_STEPS]):
        if origins.rank(key) >= set_with_them >= 0:
            remedy = f"Set {STAGES}.0.{key} and so on{or_choose}"
            yield Problem(key, f"has no effect, since each stage has its own. {remedy}", origins.of(key))
    sized = all(HALVED in each or each.get(FRAME_HW) is not None for each in given)
    if sized and HALVED in origins.typed and HALVED not in everywhere:
        remedy = f"Leave it out, or set {STAGES}.0.{FRAME_HW} and so on{or_choose}"
        yield Problem(HALVED, f"has no effect, since each stage has frames of its own. {remedy}", origins.of(HALVED))


def _contradictions(config: Config, origins: Origins, checks: Sequence[SectionCheck]) -> Iterator[Problem]:
    """What is wrong with a stage's config that is not wrong with the config itself."""

    def problems(one: Config) -> dict[tuple[str, str], None]:
        found = (problem for reads, check in checks if set(reads) <= one.model_fields_set for problem in check(one))
        return {(problem.key, problem.message): None for problem in found}

    known = problems(config)
    for i, (given, stage) in enumerate(zip(_stages(config), _complete(config), strict=True)):
        one = _laid_over(config, stage)
        own = FRAME_HW in given or HALVED in given
        remedy = f"add +{STAGES}.{i}.{FRAME_HW}=null" if own else f"add {FRAME_HW}=null"
        sizes = check_typed_size(one.dataset, given if own else origins.typed, remedy)
        told = {(each.key, each.message): None for each in sizes}
        for key, message in {**told, **problems(one)}:
            if (key, message) not in known:
                inside = f"{STAGES}.{i}.{key}" if key in stage else f"{STAGES}.{i}"
                yield Problem(inside, message if key in stage else f"{key} {message}")


# --- laying settings over a config -----------------------------------------------------------------------------------


def _stages(config: Config) -> list[Settings]:
    assert config.training.stages is not None, "asked for a stage of a config that has some"
    return [dict(_settings(config, stage)) for stage in config.training.stages]


def _complete(config: Config) -> list[Settings]:
    """Every setting that one of the stages names, in each of them."""
    stages = [{TOTAL_STEPS: stage[MAX_STEPS], **stage} for stage in _stages(config)]
    keys = dict.fromkeys(key for stage in stages for key in stage)
    return [{key: stage[key] if key in stage else _plain_value(config, key) for key in keys} for stage in stages]


def _settings(node: BaseModel, stage: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Full keys and values of nested settings; also of keys that do not exist."""
    for name, value in stage.items():
        key, inner = names.join(above, name), getattr(node, name, None) if name in type(node).model_fields else None
        if isinstance(inner, BaseModel) and isinstance(value, Mapping):
            yield from _settings(inner, value, key)
        else:
            yield key, value


def _names(stage: Any) -> Iterator[str]:
    for name, value in stage.items() if isinstance(stage, Mapping) else ():
        yield name
        yield from _names(value)


def _nested(settings: Settings) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, name = key.split(".")
        node = out
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return out


def _plain_value(config: Config, key: str) -> Any:
    node: Any = config
    for name in key.split("."):
        node = getattr(node, name)
    return to_jsonable_python(node)


def _recorded_value(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _laid_over(config: C, settings: Settings) -> C:
    for key, value in settings.items():
        config = _with(config, key.split("."), value)
    return config


M = TypeVar("M", bound=BaseModel)


def _with(node: M, path: Sequence[str], value: Any) -> M:
    name = path[0]
    if len(path) > 1:
        return node.model_copy(update={name: _with(getattr(node, name), path[1:], value)})
    info = node.__class__.model_fields[name]
    annotation: Any = Annotated[info.annotation, info]  # type: ignore[not-a-type]  # made at run time
    typed = TypeAdapter(annotation).validate_json(json.dumps(value), strict=True)
    return node.model_copy(update={name: typed})
