"""What a sound config says without effect, or means otherwise than was typed: told, or refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from config.errors import Problem
from config.schema import DatasetConfig, ModelConfig, SizeWeightConfig

NOTES = "notes"
HALVED, FRAME_HW = "dataset.downsample_by_factor_2", "dataset.frame_hw"
_AREAS = ("small_area", "medium_area")
_READ = {"exponential": {"small_area"}, "step": {*_AREAS}, "linear": {"medium_area"}}  # by kind of size weight


def remarks(sections: Mapping[str, Any], typed: Collection[str]) -> Iterator[str]:
    """Lines about valid sections; `typed`: keys of the command line."""
    model = sections.get("model")
    if isinstance(model, ModelConfig) and model.loss.size_weight.kind is not None:
        yield from _about_areas(model.loss.size_weight)
    noted = [name for name in sections.get(NOTES) or {} if f"{NOTES}.{name}" not in typed]
    if noted and NOTES not in typed:
        yield f"kept with the run as notes, without any effect: {', '.join(noted)}"


def _about_areas(weight: SizeWeightConfig) -> Iterator[str]:
    for name in _AREAS:
        value, default = getattr(weight, name), SizeWeightConfig.model_fields[name].default
        if name not in _READ[str(weight.kind)] and value != default:
            yield f"model.loss.size_weight.{name}={value:g} has no effect: kind={weight.kind} does not read it"


def check_typed_size(
    dataset: DatasetConfig, typed: Collection[str], remedy: str = f"add {FRAME_HW}=null"
) -> Iterator[Problem]:
    """A file's frame_hw would win over the typed downsample_by_factor_2; `remedy` has the latter count."""
    if dataset.frame_hw is None or HALVED not in typed:
        return
    meant = dataset.model_copy(update={"frame_hw": None}).loaded_hw
    if meant != dataset.frame_hw:
        frames = f"makes frames of {list(meant)}, but {FRAME_HW}={list(dataset.frame_hw)} says otherwise"
        yield Problem(HALVED, f"{frames}. Leave it out, or {remedy}")
