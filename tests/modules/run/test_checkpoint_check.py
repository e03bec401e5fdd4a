"""Checkpoints that do not fit the network: refused before the first step."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from config.errors import UserError
from config.schema import TrainConfig
from modules.detection import DetectionModule
from modules.optimizer import build_optimizer
from modules.run.checkpoint_check import check_moments, check_resumable, check_states
from tests.runs import NETWORK, checkpoint_content

PATH = Path("last_epoch=000-step=3.ckpt")
WRONG_MOMENTS: dict[str, Callable[[dict[int, Any], dict[str, Any]], object]] = {
    r"state\.1\.exp_avg is not.*\[1\] for a parameter \[4, 2\]": lambda s, g: s[1].update(exp_avg=torch.zeros(1)),
    r"state\.1\.exp_avg_sq is not.*float64": lambda s, g: s[1].update(exp_avg_sq=torch.zeros(4, 2).double()),
    r"state\.1\.step is not": lambda s, g: s[1].update(step=torch.zeros(2)),
    r"state\.1 is not what.*AdamW": lambda s, g: s[1].pop("step"),
    r"state\.7 is not": lambda s, g: s.update({7: s[1]}),
    r"param_groups is not": lambda s, g: g.update(params=[0]),
    r"param_groups\.lr is not": lambda s, g: g.update(lr=[1]),
}


def test_moments_of_another_network_are_refused(make_config: Callable[..., TrainConfig]) -> None:
    """The fused step would write beyond them."""
    parameters = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(4, 2))]
    optimizer = build_optimizer(parameters, make_config().training)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    check_moments(optimizer.state_dict(), optimizer, PATH)
    for message, change in WRONG_MOMENTS.items():
        state = copy.deepcopy(optimizer.state_dict())
        change(state["state"], state["param_groups"][0])
        with pytest.raises(UserError, match=rf"^{PATH}: optimizer_states\.{message}"):
            check_moments(state, optimizer, PATH)


def test_hidden_states_of_other_cells_are_refused_and_those_of_another_size_are_not() -> None:
    like = [(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4)), (torch.zeros(1, 5, dtype=torch.complex64),)]
    check_states([(torch.zeros(8, 2, 6, 8).half(), torch.zeros(8, 2, 6, 8)), like[1]], like, PATH, "hidden_state.0")
    for other in ([like[0]], [like[0], ()], [like[0], (torch.zeros(1, 5),)], [like[0], (like[1][0][0],)]):
        with pytest.raises(UserError, match=r"hidden_state\.0 is not"):
            check_states(other, like, PATH, "hidden_state.0")


def test_a_checkpoint_of_this_network_passes_and_weights_of_another_do_not(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    module = DetectionModule(make_config(*NETWORK))
    state = module.detector.backbone.lane_state(module.config.input_hw)
    sound = checkpoint_content(
        state_dict=module.state_dict(),
        optimizer_states=[module.configure_optimizers().state_dict()],
        hidden_state=[[tuple(torch.zeros(part.shape) for part in stage) for stage in state]],
    )
    torch.save(sound, tmp_path / PATH)
    check_resumable(tmp_path / PATH, module)
    recorded = module.config.model_dump(mode="json")
    for config, words in (
        (recorded | {"dataset": recorded["dataset"] | {"frame_hw": [8, 12]}}, None),  # as downsample_by_factor_2 says
        (recorded | {"dataset": recorded["dataset"] | {"frame_hw": [12, 18]}}, r"12 x 18.*8 x 12.*weights=.*frame_hw="),
        (recorded | {"model": {"backbone": {"partition_split_32": 2}}}, "partition_split_32=2; here it is 1.*weights="),
    ):
        torch.save({**sound, "config": config}, tmp_path / PATH)
        with contextlib.nullcontext() if words is None else pytest.raises(UserError, match=words):
            check_resumable(tmp_path / PATH, module)
    sound["state_dict"].popitem()
    torch.save(sound, tmp_path / PATH)
    with pytest.raises(UserError, match="does not fit the config's model"):
        check_resumable(tmp_path / PATH, module)
