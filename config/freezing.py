"""Names of the network's parts that `training.freeze` may keep as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from config.errors import Problem
from config.schema import TrainConfig

NUM_STAGES = 4
PARTS = ("backbone", *(f"backbone.stages.{number}" for number in range(1, NUM_STAGES + 1)), "fpn", "head")
_MODULES = {
    "backbone": tuple(f"backbone.stages.{index}" for index in range(NUM_STAGES)),
    "fpn": ("fpn",),
    "head": ("head",),
}
_RANGE = re.compile(r"backbone\.stages\.([1-9])(?:-([1-9]))?")


def frozen_modules(parts: Iterable[str]) -> set[str]:
    """The detector's modules that parts stand for; stages count from 1 as in model.fpn.in_stages, modules from 0.

    Raises ValueError for a name that is none.
    """
    return {module for part in parts for module in _modules_of(part)}


def _modules_of(part: str) -> tuple[str, ...]:
    if part in _MODULES:
        return _MODULES[part]
    match = _RANGE.fullmatch(part)
    if match is None:
        raise ValueError(part)
    first, last = int(match[1]), int(match[2] or match[1])
    if not first <= last <= NUM_STAGES:
        raise ValueError(part)
    return _MODULES["backbone"][first - 1 : last]


def check_freeze(config: TrainConfig) -> Iterator[Problem]:
    """Parts must exist, one must be left to train, and what is frozen must have been trained before."""
    parts = config.training.freeze
    try:
        modules = frozen_modules(parts)
    except ValueError as error:
        message = f"there is no part {str(error)!r}; parts: {', '.join(PARTS)}; or several stages, backbone.stages.1-2"
        yield Problem("training.freeze", message)
        return
    if modules == frozen_modules(_MODULES):
        yield Problem("training.freeze", f"is {', '.join(parts)}: nothing is left to train")
    elif parts and isinstance(config, TrainConfig) and config.weights is None and config.resume is None:
        message = f"is {', '.join(parts)}, which would stay as they are drawn at random. Add weights=FILE"
        yield Problem("training.freeze", message)
