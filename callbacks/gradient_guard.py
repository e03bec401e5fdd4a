"""Steps with a non-finite loss or gradient are skipped, counted and written down."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from config.errors import SharedError
from data.batch import SequenceBatch
from modules.boundary import BoundaryCallback
from modules.detection import of_ours
from modules.run.writing import append_line


class TooManySkippedStepsError(SharedError):
    """Raised between two steps. Weights and moments are those of before, as no skipped step touched them."""


class GradientGuard(BoundaryCallback):
    """Keeps a step whose gradient is not finite from touching weights, batch-norm statistics or hidden states.

    The decision stays on the device: the fused optimiser skips by its `found_inf` flag, which in float16 the gradient
    scaler sets. The host reads the flags every `check_every` steps only, so that a GPU never waits.

    In float16 a gradient that overflows because it was scaled too high is the scaler's daily business: the step is
    skipped, but the forward pass was sound, so what it left stays, and it is no fault to be told.
    """

    def __init__(self, log_file: Path, max_skipped_steps: int, check_every: int) -> None:
        self.skipped = 0
        self._log_file = log_file
        self._limit = max_skipped_steps
        self._check_every = check_every
        self._loss_is_finite: Tensor | None = None  # over the batches of the open step
        self._flags: list[Tensor] = []  # per step: whether it was skipped, and whether that is a fault
        self._addresses: deque[dict[str, Any]] = deque(maxlen=check_every)
        self._in_a_row = 0
        self._exceeded_at: int | None = None  # step
        self._rank = 0
        self._buffers: list[Tensor] = []
        self._kept = torch.empty(0)  # the buffers as they were before the step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._rank = trainer.global_rank
        self._buffers = [buffer for buffer in pl_module.buffers() if buffer.is_floating_point()]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: SequenceBatch, batch_idx: int
    ) -> None:
        if of_ours(pl_module).accumulation.between_steps:
            self._kept = torch.cat([buffer.flatten() for buffer in self._buffers])
            self._loss_is_finite = None
            self._addresses.append({"step": trainer.global_step, "frames": []})
        self._addresses[-1]["frames"] += batch.addresses()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        finite = loss.detach().isfinite()
        self._loss_is_finite = finite if self._loss_is_finite is None else self._loss_is_finite & finite

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            scaler.unscale_(optimizer)  # Lightning leaves it to the fused step, too late for norm and clipping
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        pl_module.log("train/grad_norm", norm, batch_size=1)
        skipped = ~torch.isfinite(norm)
        if scaler is None:
            setattr(optimizer, "found_inf", skipped.float())  # noqa: B010 (what PyTorch's scaler sets, undeclared)
        assert self._loss_is_finite is not None, "a step comes after a backward pass"
        fault = skipped if scaler is None else ~self._loss_is_finite
        self._restore_buffers_where(fault)
        of_ours(pl_module).train_state.reset_where(fault)
        self._flags.append(torch.stack((skipped, fault)))

    def _restore_buffers_where(self, flag: Tensor) -> None:
        now = torch.cat([buffer.flatten() for buffer in self._buffers])  # one kernel for all
        chosen = torch.where(flag, self._kept, now).split([buffer.numel() for buffer in self._buffers])
        shaped = [part.view_as(buffer) for part, buffer in zip(chosen, self._buffers, strict=True)]
        torch._foreach_copy_(self._buffers, shaped)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if len(self._flags) >= self._check_every and of_ours(pl_module).accumulation.between_steps:
            self._read_flags()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        while len(self._addresses) > len(self._flags):  # of a step that the last epoch did not complete
            self._addresses.pop()

    def on_step_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read_flags()
        self._check()

    def _read_flags(self) -> None:
        flags = torch.stack(self._flags).tolist() if self._flags else []
        for (skipped, fault), address in zip(flags, self._addresses, strict=True):
            self._in_a_row = self._in_a_row + 1 if skipped else 0
            if fault:
                self._write_down(address)
            if self._in_a_row >= self._limit and self._exceeded_at is None:
                self._exceeded_at = address["step"]
        self._flags.clear()
        self._addresses.clear()

    def _check(self) -> None:
        if self._exceeded_at is not None:
            raise TooManySkippedStepsError(
                f"step {self._exceeded_at}: the loss or gradient was not finite for {self._limit} steps in a row "
                f"(training.max_skipped_steps). Their batches stand in {self._log_file}. Resume from a checkpoint "
                "before that with a lower training.learning_rate, or with training.precision=32"
            )

    def _write_down(self, address: dict[str, Any]) -> None:
        self.skipped += 1
        print(f"step {address['step']}: loss or gradient not finite, step skipped ({self.skipped} so far)", flush=True)
        append_line(self._log_file, json.dumps({"rank": self._rank, **address}))

    def state_dict(self) -> dict[str, Any]:
        self._read_flags()
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped, self._in_a_row = state_dict["skipped"], state_dict["in_a_row"]
