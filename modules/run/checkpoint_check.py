"""Whether a checkpoint fits the network of the config: before the run's folder is touched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from config.errors import UserError
from config.schema import Config, recorded_hw
from models.cells.cell import State
from models.weights.pretrained import changes_without_shape, check_compatible
from models.weights.search import LAST_STEP, WEIGHTS
from modules.detection import DetectionModule
from modules.run.checkpoint_content import refuse
from modules.run.checkpoint_file import read_checkpoint

DETECTOR = "detector."


def check_resumable(path: Path, module: DetectionModule) -> None:
    """Raises UserError for weights, moments or hidden states that are not this network's, or frames of another size."""
    content = read_checkpoint(path)
    _check_settings(content["config"], module.config, path)
    for weights in (content[key] for key in (WEIGHTS, LAST_STEP) if key in content):
        inside = {name.removeprefix(DETECTOR): value for name, value in weights.items() if name.startswith(DETECTOR)}
        check_compatible(inside, module.detector.state_dict(), path)
    optimizers = content.get("optimizer_states", [])
    if len(optimizers) != 1:
        refuse(path, "optimizer_states", f"{len(optimizers)} optimizers")
    check_moments(optimizers[0], module.configure_optimizers(), path)
    expected = module.detector.backbone.lane_state(module.config.input_hw)
    for rank, states in enumerate(content.get("hidden_state", [])):
        if states is not None:
            check_states(states, expected, path, f"hidden_state.{rank}")


def _check_settings(recorded: Mapping[str, Any], config: Config, path: Path) -> None:
    """What no shape tells; within a stage of a training none of it may change, either."""
    before, now = recorded_hw(recorded.get("dataset")), config.dataset.loaded_hw
    if before is not None and before != now:
        raise UserError(
            f"{path}: was trained with frames of {before[0]} x {before[1]}, and here they are {now[0]} x {now[1]}: the "
            f"figures of one run are of one size. weights={path} starts a new run from it; "
            f"dataset.frame_hw=[{before[0]},{before[1]}] goes on with this one"
        )
    changes = list(changes_without_shape({"config": recorded}, config.model))
    if changes:
        told = f"{path}: was trained with {'; '.join(changes)}"
        raise UserError(f"{told}. A run keeps its network. weights={path} starts a new run from it")


def check_states(states: list[State], like: list[State], path: Path, place: str) -> None:
    """Kinds and numbers of tensors. Of another size they are sound, and start anew."""
    if [len(state) for state in states] != [len(state) for state in like]:
        refuse(path, place, "not as many tensors as the cells have")
    for part, own in zip(_flat(states), _flat(like), strict=True):
        kinds = [(tensor.is_floating_point(), tensor.is_complex(), tensor.ndim) for tensor in (part, own)]
        if kinds[0] != kinds[1]:
            refuse(path, place, f"{part.dtype} {list(part.shape)} where the cells have {own.dtype} {list(own.shape)}")


def check_moments(state: Mapping[str, Any], own: Optimizer, path: Path) -> None:
    """AdamW's, of the shapes of the parameters: with others a fused step would write where it must not."""
    theirs, ours = state["param_groups"], own.state_dict()["param_groups"]
    if [group.get("params") for group in theirs] != [group["params"] for group in ours]:
        refuse(path, "optimizer_states.param_groups", "not the parameters of this network")
    for group, own_group in zip(theirs, ours, strict=True):
        for name, value in group.items():
            if name != "params" and type(value) not in {type(own_group.get(name)), float, int, bool, type(None)}:
                refuse(path, f"optimizer_states.param_groups.{name}", type(value).__name__)
    parameters = dict(enumerate(parameter for group in own.param_groups for parameter in group["params"]))
    for index, moments in state["state"].items():
        parameter = parameters.get(index)
        if parameter is None or moments.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            refuse(path, f"optimizer_states.state.{index}", "not the moments of AdamW")
            continue
        if moments["step"].shape != () or moments["step"].dtype != torch.float32 or moments["step"] < 0:
            refuse(path, f"optimizer_states.state.{index}.step", "no number of steps")
        for name in ("exp_avg", "exp_avg_sq"):
            moment = moments[name]
            if moment.shape != parameter.shape or moment.dtype != parameter.dtype:
                what = f"{moment.dtype} {list(moment.shape)} for a parameter {list(parameter.shape)}"
                refuse(path, f"optimizer_states.state.{index}.{name}", what)


def _flat(stages: list[State]) -> list[Tensor]:
    return [part for stage in stages for part in stage]
