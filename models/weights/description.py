"""What the shapes of a detector's weights tell about its settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from models.cells.build import OWN

Weights = Mapping[str, Tensor]
STEM = "backbone.stages.0.downsample.conv.weight"
MLP = "backbone.stages.0.blocks.0.window.mlp"
CLASSES = "model.head.num_classes"

# Settings that tell in no shape.
WITHOUT_SHAPE = (
    "model.backbone.stage.cell",
    "model.backbone.stage.cell_options",
    "model.backbone.partition_split_32",
    "model.backbone.stage.attention.dim_head",
    "model.backbone.stage.attention.mlp_activation",
    "model.backbone.stage.s5.discretization",
    "model.backbone.stage.s5.step_scale",
    "model.backbone.stage.s5.carry_state",
    "model.fpn.act",
    "model.head.act",
)


def describe(weights: Weights) -> dict[str, Any]:
    """Settings by key, as far as `weights` (in our names, perhaps of a part only) tell them."""
    settings = {}
    for key, tell in SETTINGS.items():
        try:
            settings[key] = tell(weights)
        except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError):  # that part is not there, or odd
            continue
    return settings


def differing_settings(theirs: Weights, ours: Weights) -> list[str]:
    """Settings that would make a detector for `theirs`, as one types them; those of the class count come last."""
    told, own = describe(theirs), describe(ours)
    gated, cell, lstm, s5 = (f"model.backbone.stage.{key}" for key in GATED_AND_CELL)
    if told.get(gated) and own.get(gated):
        told.pop("model.backbone.stage.attention.mlp_ratio", None)  # rounded: only the shapes can tell
    if told.get(cell) != own.get(cell):
        for setting in (lstm, s5):
            told.pop(setting, None)
    return [
        f"{key}={typed(value)}" for key, value in told.items() if key in own and value != own[key] and key != CLASSES
    ]


def part_of(name: str) -> str:
    """The part of the network that a parameter belongs to, as people call it."""
    stage = re.match(r"backbone\.stages\.(\d+)\.", name)
    return f"backbone.stage {int(stage[1]) + 1}" if stage else name.partition(".")[0]


def typed(value: object) -> str:
    """As one types it on the command line."""
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    if value is None or isinstance(value, str):
        return value or "null"
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value).lower()


def _dims(weights: Weights) -> list[int]:
    stages = _count(weights, r"backbone\.stages\.(\d+)\.")
    return [len(weights[f"backbone.stages.{k}.downsample.conv.weight"]) for k in range(stages)]


def _dim_multiplier(weights: Weights) -> tuple[int, ...]:
    dims = _dims(weights)
    return tuple(dim // dims[0] for dim in dims)


def _num_blocks(weights: Weights) -> tuple[int, ...]:
    return tuple(_count(weights, rf"backbone\.stages\.{k}\.blocks\.(\d+)\.") for k in range(len(_dims(weights))))


def _cell(weights: Weights) -> str:
    """The name of what a stage has beside its convolution and its blocks."""
    parts = {match[1] for key in weights if (match := re.match(r"backbone\.stages\.0\.(\w+)\.", key))}
    names = {"MODULE:NAME, a cell of your own" if part == OWN else part for part in parts}
    if not parts:
        raise KeyError("backbone")
    return ", ".join(sorted(names - {"downsample", "blocks"}))


def _state_dim(weights: Weights) -> int | None:
    """An S5 cell's; None where it is the width of each stage."""
    dims = _dims(weights)
    steps = [weights.get(f"backbone.stages.{k}.s5.ssm.log_step") for k in range(len(dims))]
    state_dims = [dim if step is None else len(step) for step, dim in zip(steps, dims, strict=True)]
    return None if state_dims == dims else state_dims[0]


def _fpn_stages(weights: Weights) -> tuple[int, ...]:
    """The stages that a pyramid has layers for; the deepest one is only ever gone up to."""
    numbers = [int(match[1]) for key in weights if (match := re.match(r"fpn\.(?:top_down|bottom_up)(\d)\.", key))]
    return tuple(range(min(numbers), max(numbers) + 1))


def _fpn_depth(weights: Weights) -> float:
    _fpn_stages(weights)  # else there is no pyramid
    return round(_count(weights, r"fpn\.top_down3\.bottlenecks\.(\d+)\.") / 3, 2)


def _count(weights: Weights, pattern: str) -> int:
    """Length of a module list, from the indices in its parameters' names."""
    return len({match[1] for key in weights if (match := re.match(pattern, key))})


def _patch_size(weights: Weights) -> int:
    kernel = weights[STEM].shape[2]
    return (kernel + 1) // 2 if kernel % 2 else kernel


GATED_AND_CELL = ("attention.mlp_gated", "cell", "lstm.dws_conv", "s5.state_dim")
SETTINGS: dict[str, Callable[[Weights], Any]] = {
    "model.backbone.input_channels": lambda w: w[STEM].shape[1],
    "model.backbone.embed_dim": lambda w: _dims(w)[0],
    "model.backbone.dim_multiplier": _dim_multiplier,
    "model.backbone.num_blocks": _num_blocks,
    "model.backbone.stage.downsample.overlap": lambda w: w[STEM].shape[2] % 2 == 1,
    "model.backbone.stem.patch_size": _patch_size,
    "model.backbone.stage.attention.attention_bias": lambda w: (
        w["backbone.stages.0.blocks.0.window.attention.qkv.weight"].ndim == 2
        and "backbone.stages.0.blocks.0.window.attention.qkv.bias" in w
    ),
    "model.backbone.stage.attention.mlp_bias": lambda w: w[f"{MLP}.fc1.weight"].ndim == 2 and f"{MLP}.fc1.bias" in w,
    "model.backbone.stage.attention.mlp_gated": lambda w: (
        w[f"{MLP}.fc1.weight"].shape[0] != w[f"{MLP}.fc2.weight"].shape[1]
    ),
    "model.backbone.stage.attention.mlp_ratio": lambda w: w[f"{MLP}.fc2.weight"].shape[1] / _dims(w)[0],
    "model.backbone.stage.cell": _cell,
    "model.backbone.stage.lstm.dws_conv": lambda w: (
        "backbone.stages.0.lstm.depthwise.weight" in w if _cell(w) else False
    ),
    "model.backbone.stage.s5.state_dim": _state_dim,
    "model.fpn.depth": _fpn_depth,
    "model.fpn.in_stages": _fpn_stages,
    CLASSES: lambda w: len(w["head.class_predictors.0.weight"]),
}
