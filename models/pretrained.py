"""Checkpoints, ours and other people's, to weights in our names. Loading never runs code from the file.

Read are our own checkpoints, checkpoints of RVT (github.com/uzh-rpg/RVT), of its forks with a `PlainLSTM2d` and of its
sister with S5 cells (github.com/uzh-rpg/ssms_event_cameras), and bare state dicts of any.
"""

from __future__ import annotations

import collections
import pickle
import re
import typing
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import omegaconf
import torch
from torch import Tensor, nn

from config.errors import UserError
from config.schema import ModelConfig, S5Config
from models.cells.build import OWN
from models.detector import Detector
from models.published_names import in_our_names, is_published_s5

# What RVT's hyper_parameters are made of. Plain containers: building them runs nothing that the file could choose.
SAFE_CLASSES = [
    omegaconf.DictConfig,
    omegaconf.ListConfig,
    omegaconf.base.ContainerMetadata,
    omegaconf.base.Metadata,
    *(getattr(omegaconf.nodes, f"{kind}Node") for kind in ("Any", "String", "Integer", "Float", "Boolean")),
    collections.defaultdict,
    typing.Any,
    dict,
    list,
    int,
    float,
    str,
    bool,
]


def load_into(detector: Detector, config: ModelConfig, path: Path, trust: bool = False) -> list[str]:
    """Give a detector the weights of a checkpoint; returns what its user should know about them, a line each.

    Args:
        config: what the detector was built from.
        trust: unpickle a file that is more than weights, which runs any code hidden in it.

    Raises:
        UserError: as `load_weights` and `check_compatible`.
    """
    content = _read(path, trust)
    tensors = _tensors(content)
    weights = _checked(tensors, path)
    check_compatible(weights, detector, path)
    detector.load_state_dict(weights)
    notes = [f"{path} was trained with {change}" for change in _changes_without_shape(content, config)]
    return notes + (_about_the_state(path, config.backbone.stage.s5) if is_published_s5(tensors) else [])


def _changes_without_shape(content: object, config: ModelConfig) -> Iterator[str]:
    """Settings that tell in no shape, where a checkpoint of ours was trained with others."""
    trained = content.get("config") if isinstance(content, dict) else None
    for key in WITHOUT_SHAPE:
        before: Any = trained
        now: Any = config
        for name in key.split(".")[1:]:
            now = getattr(now, name, None)
        for name in key.split("."):
            before = before.get(name) if isinstance(before, dict) else None
        if None not in (before, now) and before != now:
            yield f"{key}={_typed(before)}; here it is {_typed(now)}"


def _about_the_state(path: Path, config: S5Config | None) -> list[str]:
    trained = f"{path} comes from the published code for S5, which starts every chunk of frames from a state of zeros"
    assert config is not None, "the weights fit, so the cell is S5"
    if config.carry_state:
        return [
            f"{trained}; here the state goes on from chunk to chunk, as S5 is defined. "
            "model.backbone.stage.s5.carry_state=false does as that code does, as its published results need it"
        ]
    return [f"{trained}; so it is here, as model.backbone.stage.s5.carry_state=false asks"]


def load_weights(path: Path, trust: bool = False) -> dict[str, Tensor]:
    """The detector's weights in a checkpoint, by our names.

    Raises:
        UserError: no such file, damaged, no weights of a detector like ours, or only loadable with `trust`.
    """
    return _checked(_tensors(_read(path, trust)), path)


def _tensors(content: object) -> dict[str, Tensor]:
    state_dict = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {str(key): value for key, value in state_dict.items() if isinstance(value, Tensor)}


def _checked(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    weights = in_our_names(tensors)
    if not {"backbone.stages.0.downsample.conv.weight", "head.class_predictors.0.weight"} <= weights.keys():
        found = ", ".join(list(tensors)[:3]) or "no tensors"
        raise UserError(f"{path} holds no weights of an RVT detector (found: {found}). Give another checkpoint")
    return weights


@dataclass(frozen=True)
class Description:
    """What the shapes of a detector's weights tell about its settings."""

    input_channels: int
    embed_dim: int
    dim_multiplier: tuple[int, ...]
    num_blocks: tuple[int, ...]
    overlap: bool
    patch_size: int
    attention_bias: bool
    mlp_bias: bool
    mlp_gated: bool
    mlp_ratio: float
    cell: str
    dws_conv: bool
    state_dim: int | None
    fpn_depth: float
    fpn_stages: tuple[int, ...]
    num_classes: int


SETTINGS = {
    "input_channels": "model.backbone.input_channels",
    "embed_dim": "model.backbone.embed_dim",
    "dim_multiplier": "model.backbone.dim_multiplier",
    "num_blocks": "model.backbone.num_blocks",
    "overlap": "model.backbone.stage.downsample.overlap",
    "patch_size": "model.backbone.stem.patch_size",
    "attention_bias": "model.backbone.stage.attention.attention_bias",
    "mlp_bias": "model.backbone.stage.attention.mlp_bias",
    "mlp_gated": "model.backbone.stage.attention.mlp_gated",
    "mlp_ratio": "model.backbone.stage.attention.mlp_ratio",
    "cell": "model.backbone.stage.cell",
    "dws_conv": "model.backbone.stage.lstm.dws_conv",
    "state_dim": "model.backbone.stage.s5.state_dim",
    "fpn_depth": "model.fpn.depth",
    "fpn_stages": "model.fpn.in_stages",
    "num_classes": "model.head.num_classes",
}


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


def describe(weights: dict[str, Tensor]) -> Description:
    """Size, class count and kind of the detector that `weights` (in our names) belong to."""
    stem = weights["backbone.stages.0.downsample.conv.weight"]
    mlp = "backbone.stages.0.blocks.0.window.mlp"
    fc1, fc2 = weights[f"{mlp}.fc1.weight"], weights[f"{mlp}.fc2.weight"]
    stages = _count(weights, r"backbone\.stages\.(\d+)\.")
    dims = [len(weights[f"backbone.stages.{k}.downsample.conv.weight"]) for k in range(stages)]
    num_bottlenecks = _count(weights, r"fpn\.top_down3\.bottlenecks\.(\d+)\.")
    return Description(
        input_channels=stem.shape[1],
        embed_dim=dims[0],
        dim_multiplier=tuple(dim // dims[0] for dim in dims),
        num_blocks=tuple(_count(weights, rf"backbone\.stages\.{k}\.blocks\.(\d+)\.") for k in range(stages)),
        overlap=stem.shape[2] % 2 == 1,
        patch_size=(stem.shape[2] + 1) // 2 if stem.shape[2] % 2 else stem.shape[2],
        attention_bias="backbone.stages.0.blocks.0.window.attention.qkv.bias" in weights,
        mlp_bias=f"{mlp}.fc1.bias" in weights,
        mlp_gated=fc1.shape[0] != fc2.shape[1],
        mlp_ratio=fc2.shape[1] / dims[0],
        cell=_cell(weights),
        dws_conv="backbone.stages.0.lstm.depthwise.weight" in weights,
        state_dim=_state_dim(weights, dims),
        fpn_depth=round(num_bottlenecks / 3, 2),
        fpn_stages=_fpn_stages(weights),
        num_classes=len(weights["head.class_predictors.0.weight"]),
    )


def check_compatible(weights: dict[str, Tensor], detector: nn.Module, path: Path) -> None:
    """Make sure that `detector.load_state_dict(weights)` will do.

    Raises:
        UserError: it will not; the message names `path` and the settings that the weights ask for.
    """
    own = detector.state_dict()
    theirs, ours = asdict(describe(weights)), asdict(describe(own))
    if theirs["mlp_gated"] == ours["mlp_gated"] is True:
        theirs.pop("mlp_ratio")  # a gated MLP's width is rounded: only the shapes below can tell
    if theirs["cell"] != ours["cell"]:
        for setting in ("dws_conv", "state_dim"):
            theirs.pop(setting)
    changes = [f"{SETTINGS[name]}={_typed(value)}" for name, value in theirs.items() if value != ours[name]]
    if theirs["num_classes"] != ours["num_classes"]:
        changes.append(f"a dataset with {theirs['num_classes']} classes (now {ours['num_classes']})")
    if changes:
        raise UserError(f"{path} belongs to another model than the config describes. It needs {', '.join(changes)}")
    wrong = [key for key in {**own, **weights} if key not in own or key not in weights]
    wrong += [key for key in own if key in weights and own[key].shape != weights[key].shape]
    if wrong:
        raise UserError(
            f"{path} does not fit the config's model: {len(wrong)} parameters differ, {', '.join(wrong[:3])} first. "
            "Compare model.* with the config that it was trained with"
        )


def _read(path: Path, trust: bool) -> object:
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is an empty file: it was never completely written. Take another checkpoint")
    try:
        with torch.serialization.safe_globals(SAFE_CLASSES):
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if trust or blocked is None:
            raise UserError(f"{path} is no checkpoint, or a damaged one") from error
        raise UserError(
            f"{path} holds more than weights ({blocked[1]}), and loading that could run code from the file. "
            "Set trust_checkpoint=true if you know where the file comes from"
        ) from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as a checkpoint, perhaps it is truncated: {reason}") from error


def _cell(weights: dict[str, Tensor]) -> str:
    """The name of what a stage has beside its convolution and its blocks."""
    parts = {match[1] for key in weights if (match := re.match(r"backbone\.stages\.0\.(\w+)\.", key))}
    names = {"MODULE:NAME, a cell of your own" if part == OWN else part for part in parts}
    return ", ".join(sorted(names - {"downsample", "blocks"}))


def _state_dim(weights: dict[str, Tensor], stage_dims: list[int]) -> int | None:
    """An S5 cell's; None where it is the width of each stage."""
    steps = [weights.get(f"backbone.stages.{k}.s5.ssm.log_step") for k in range(len(stage_dims))]
    state_dims = [dim if step is None else len(step) for step, dim in zip(steps, stage_dims, strict=True)]
    return None if state_dims == stage_dims else state_dims[0]


def _fpn_stages(weights: dict[str, Tensor]) -> tuple[int, ...]:
    """The stages that a pyramid has layers for; the deepest one is only ever gone up to."""
    numbers = [int(match[1]) for key in weights if (match := re.match(r"fpn\.(?:top_down|bottom_up)(\d)\.", key))]
    return tuple(range(min(numbers), max(numbers) + 1))


def _count(weights: dict[str, Tensor], pattern: str) -> int:
    """Length of a module list, from the indices in its parameters' names."""
    return len({match[1] for key in weights if (match := re.match(pattern, key))})


def _typed(value: object) -> str:
    """As one types it on the command line."""
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    if value is None or isinstance(value, str):
        return value or "null"
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value).lower()
