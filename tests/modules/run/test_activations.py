"""Memory that is told before it is taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from config.errors import UserError
from config.hardware import Device
from config.schema import TrainConfig
from modules.detection import DetectionModule
from modules.run.activations import StepMemory
from tests.runs import NETWORK

CPU = Device("cpu", (), "32-true", ())
FREE = "modules.run.activations.psutil.virtual_memory"


class Free:
    def __init__(self, available: float) -> None:
        self.available = available


def memory_of(config: TrainConfig) -> StepMemory:
    return StepMemory(config, DetectionModule(config), CPU)


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_it_is_what_the_step_keeps(make_config: Callable[..., TrainConfig], checkpointing: str) -> None:
    """And nothing of the network has changed by being asked."""
    config = make_config(*NETWORK, f"training.activation_checkpointing={checkpointing}")
    memory = memory_of(config)
    detector = memory.module.detector
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    told = memory.per_lane
    assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    owned = {parameter.untyped_storage().data_ptr() for parameter in detector.parameters()}
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        shape = (config.dataset.sequence_length, 1, config.dataset.channels, *config.dataset.loaded_hw)
        features, _ = detector.encode(torch.zeros(shape, dtype=torch.uint8), None)
        output = detector.predict(detector.select(features, torch.arange(2)))
    assert output is not None
    expected = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in owned)
    assert told == pytest.approx(expected, rel=0.02)


def test_what_cannot_fit_is_refused_with_settings_that_do(
    make_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = memory_of(make_config(*NETWORK))  # batches of 4
    memory.__dict__.update(per_lane=100 << 20, per_lane_checkpointed=40 << 20)

    def require_room(lanes: float) -> None:
        monkeypatch.setattr(FREE, lambda: Free(memory.fixed + lanes * memory.per_lane))
        memory.require_room()

    require_room(4)
    for lanes, remedies in (
        (2.5, "batch_size.train=2 training.accumulate_grad_batches=2 (about 200 MiB), or {}=true (about 160 MiB)"),
        (1, "{}=true batch_size.train=2 training.accumulate_grad_batches=2 (about 80 MiB)"),
        (0, "a smaller batch, shorter chunks or smaller frames"),
    ):
        with pytest.raises(UserError, match=r"^batch_size\.train=4 at 12 x 8 keeps about 400 MiB") as refused:
            require_room(lanes)
        assert str(refused.value).endswith(f"less with {remedies.format('training.activation_checkpointing')}")
    in_stage = replace(memory, above="+training.stages.1.")
    in_stage.__dict__.update(per_lane=100 << 20, per_lane_checkpointed=40 << 20)
    monkeypatch.setattr(FREE, lambda: Free(memory.fixed + (100 << 20)))
    keys = ("training.activation_checkpointing=true", "batch_size.train=2", "training.accumulate_grad_batches=2")
    with pytest.raises(UserError, match=" ".join(rf"\+training\.stages\.1\.{re.escape(key)}" for key in keys)):
        in_stage.require_room()
    with pytest.raises(UserError, match=r"Tried 9 GiB\. It needs less with"), memory.out_of_memory_told():
        raise torch.OutOfMemoryError("Tried 9 GiB. GPU 0 has less")
