"""A training step on a GPU never waits for it: shown without one, by tensors without values to wait for.

Meta tensors go through forward and backward pass; autocast, scaler and the fused optimizer want fake tensors, which are
slower and which autograd does not take.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from callbacks.gradient_guard import GradientGuard
from config.loading import load_train_config
from config.schema import TrainConfig
from data.batch import SequenceBatch
from modules.detection import DetectionModule

STAGE, LOSS = "model.backbone.stage", "model.loss"
DWS, DWS_OF_BOTH = f"{STAGE}.lstm.dws_conv=true", f"{STAGE}.lstm.dws_conv_only_hidden=false"
S5 = f"{STAGE}.cell=s5"
FOCAL = (f"{LOSS}.focal.gamma=2", f"{LOSS}.focal.alpha=0.25")
NETWORKS = {
    "tiny": ("tiny", f"{LOSS}.size_weight.kind=linear"),
    "tiny, S5": ("tiny", S5, f"{STAGE}.s5.bandlimit=0.5", f"{LOSS}.iou_kind=ciou"),
    "small, depthwise": ("small", DWS, f"{LOSS}.class_weight.kind=inverse_frequency", *FOCAL),
    "small, S5": ("small", S5, f"{STAGE}.s5.discretization=zoh", f"{LOSS}.size_weight.kind=exponential"),
    "base": ("base", f"{STAGE}.attention.mlp_gated=true", f"{LOSS}.iou_kind=giou"),
    "base, depthwise": (
        "base",
        DWS,
        DWS_OF_BOTH,
        f"{LOSS}.size_weight.kind=step",
        f"{LOSS}.size_weight.normalise=true",
    ),
}
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class NoCopies(TorchDispatchMode):
    """Between devices: the host waits for what is not in pinned memory."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in COPIES:
            devices = {leaf.device.type for leaf in tree_leaves((args, result)) if isinstance(leaf, Tensor)}
            assert len(devices) == 1, f"{func}: {devices}"
        return result


def config_of(size: str, *overrides: str) -> TrainConfig:
    """Small maps and one block a stage: the same code runs."""
    small = ("dataset.resolution_hw=[128,256]", "model.backbone.num_blocks=[1,1,1,1]", "model.fpn.depth=0.33")
    model = "model=maxvit_yolox/s5" if S5 in overrides else "model=maxvit_yolox/default"
    chosen = ("dataset=gen4", "dataset.path=.", model, f"+experiment/gen4={size}")
    return load_train_config([*chosen, *small, *overrides])


def module_of(config: TrainConfig, scaler: torch.amp.GradScaler | None = None) -> DetectionModule:
    """Without weights, and it logs nothing."""
    with torch.device("meta"):
        module = DetectionModule(config)
    if config.model.loss.class_weight.kind is not None:
        module.detector.head.weigh_classes(np.arange(1, config.dataset.num_classes + 1))
    module.log_dict = lambda *_, **__: None
    module.log = lambda *_, **__: None
    plugin = SimpleNamespace(scaler=scaler)
    trainer: Any = SimpleNamespace(num_training_batches=100, global_step=0, global_rank=0, precision_plugin=plugin)
    module._trainer = trainer
    return module.to("meta")


def batch_of(config: TrainConfig, num_labelled: int, num_boxes: int, device: str) -> SequenceBatch:
    """A frame of two lanes, which go on from the batch before."""
    return SequenceBatch(
        frames=torch.zeros(1, 2, config.dataset.channels, *config.dataset.loaded_hw, dtype=torch.uint8, device=device),
        boxes=torch.zeros(num_boxes, 5, device=device),
        box_image=torch.zeros(num_boxes, dtype=torch.int64, device=device),
        labelled_frames=torch.arange(num_labelled, device=device),
        is_first=torch.zeros(2, dtype=torch.bool, device=device),
        lane=torch.arange(2, device=device),
        sequence_names=("a", "b"),
        first_frame=torch.zeros(2, dtype=torch.int64),
        t_us=torch.zeros(1, 2, dtype=torch.int64),
    )


@pytest.fixture
def meta_without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which has no rules for it."""
    monkeypatch.setattr("torch.autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr("torch.is_autocast_enabled", lambda _: False)


@pytest.mark.usefixtures("meta_without_autocast")
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_no_network_and_no_loss_waits(network: tuple[str, ...]) -> None:
    config = config_of(*network)
    step(module_of(config), batch_of(config, 2, 3, "meta"))


@pytest.mark.usefixtures("meta_without_autocast")
def test_no_batch_waits() -> None:
    """Whatever boxes it has, and within an optimizer step that it does not complete."""
    config = config_of("tiny", "training.accumulate_grad_batches=4")
    module = module_of(config)
    for num_labelled, num_boxes in ((2, 3), (2, 0), (0, 0)):
        step(module, batch_of(config, num_labelled, num_boxes, "meta"))


def step(module: DetectionModule, batch: SequenceBatch) -> None:
    with NoCopies():
        loss = module.training_step(batch, 0)
        loss.backward()
    assert loss.device.type == "meta"
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.fixture
def gpu_that_autocasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(SequenceBatch, "addresses", lambda _: [])  # of tensors that stay on the host


@pytest.mark.usefixtures("gpu_that_autocasts")
@pytest.mark.parametrize(("precision", "cell"), [("bf16-mixed", S5), ("16-mixed", DWS)])
def test_no_precision_waits(precision: str, cell: str) -> None:
    """Gradient guard, clipping, scaler and optimizer as well; gradients are put where autograd would."""
    config = config_of("tiny", cell, f"training.precision={precision}")
    guard = GradientGuard(Path("unused"), max_skipped_steps=5, check_every=100)
    scaler = torch.amp.GradScaler("cuda") if precision == "16-mixed" else None
    module = module_of(config, scaler)
    with FakeTensorMode(allow_non_fake_inputs=True):
        module.to_empty(device="cuda")
        trainer, optimizer = module._trainer, module.configure_optimizers()
        guard.on_train_start(trainer, module)
        batch = batch_of(config, 2, 3, "cuda")
        with NoCopies():
            guard.on_train_batch_start(trainer, module, batch, 0)
            with torch.autocast("cuda", torch.bfloat16 if scaler is None else torch.float16):
                loss = module.training_step(batch, 0)
            guard.on_before_backward(trainer, module, loss)
            for parameter in module.parameters():
                parameter.grad = torch.empty_like(parameter)
            if scaler is not None:
                scaler.scale(loss)
            guard.on_before_optimizer_step(trainer, module, optimizer)
            module.configure_gradient_clipping(optimizer, 1.0)
            optimizer.step() if scaler is None else scaler.step(optimizer)
        assert loss.device.type == "cuda"


@pytest.mark.parametrize("device", ["meta", "cuda"])
@pytest.mark.parametrize(
    "wait",
    [Tensor.item, bool, Tensor.cpu, Tensor.nonzero, lambda flag: flag[flag]],
    ids=["item", "bool", "cpu", "nonzero", "mask"],
)
def test_what_waits_would_be_noticed(wait: Callable[[Tensor], object], device: str) -> None:
    with contextlib.nullcontext() if device == "meta" else FakeTensorMode():
        flag = torch.zeros(1, dtype=torch.bool, device=device)
        with pytest.raises(Exception, match=r"meta|Meta|data|aten|_to_copy"), NoCopies():
            wait(flag)
