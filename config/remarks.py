"""What a sound config says without effect, or means otherwise than was typed: told, or refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from config.errors import Problem
from config.origins import Origins
from config.schema import DatasetConfig, ModelConfig, SizeWeightConfig

NOTES = "notes"
HALVED, FRAME_HW = "dataset.downsample_by_factor_2", "dataset.frame_hw"
# sections, and the key without which the others in them do nothing
_SWITCHES = {
    "model.loss.size_weight": "kind",
    "model.loss.class_weight": "kind",
    **{
        f"dataset.data_augmentation.{chunks}.{name}": "prob"
        for chunks in ("stream", "random")
        for name in ("copy_paste", "events.drop", "events.hot_pixels")
    },
}
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


def check_idle_settings(sections: Mapping[str, Any], origins: Origins) -> Iterator[Problem]:
    """What is set after its switch, which is off: of values that are the defaults nothing else would tell."""
    if getattr(sections.get("training"), "stages", None) is not None:
        return  # one of them may switch it on
    for section, switch in _SWITCHES.items():
        settings = _within(sections, section)
        if settings is None or getattr(settings, switch):
            continue
        if switch == "kind" and settings != type(settings)():
            continue  # told whatever set it: config.checks.network
        switched = origins.rank(f"{section}.{switch}")
        for name in type(settings).model_fields:
            if name != switch and origins.rank(f"{section}.{name}") > switched:
                off = "null" if getattr(settings, switch) is None else "0"
                message = f"has no effect, since {section}.{switch} is {off}. Set that, too, or leave this out"
                yield Problem(f"{section}.{name}", message, origins.of(f"{section}.{name}"))


def _within(sections: Mapping[str, Any], key: str) -> Any:
    first, *others = key.split(".")
    found: Any = sections.get(first)
    for name in others:
        found = getattr(found, name, None)
    return found


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
