"""An exponential moving average of the weights: validated and handed on, while the weights themselves train."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from models.weights.search import LAST_STEP, WEIGHTS
from modules.detection import AVERAGE, of_ours


class WeightAverage(Callback):
    """Averages weights and batch-norm statistics after each step. Comes before the checkpoint writer.

    The decay rises with the steps, min(decay, (1 + step) / (10 + step)), as in TensorFlow's ExponentialMovingAverage:
    else the first validations of thousands of steps would see the network as it was initialised. A stage of the
    training begins anew, from the average that the one before has handed on.

    Checkpoints are laid out as those of Lightning's WeightAveraging: `state_dict`, which everybody reads, is the
    average, and `current_model_state` the weights of the last step. That callback itself asks the GPU for a number at
    each step, leaves the average on the host, and saves the two interchanged when a stop comes inside a validation.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._weights: dict[str, Tensor] = {}  # the module's own while it trains
        self._average: dict[str, Tensor] = {}
        self._restored: dict[str, Tensor] = {}
        self._interchanged = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint.get(AVERAGE, {})

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # not at the training's start: where all steps are done there is none, but a validation may be left to make
        self._average = {
            name: self._restored.get(name, value).to(value.device, copy=True)
            for name, value in _averaged(pl_module).items()
        }
        self._restored = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._weights = _averaged(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not of_ours(pl_module).accumulation.between_steps:
            return
        steps = of_ours(pl_module).steps_of_stage
        decay = min(self._decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(list(self._average.values()), list(self._weights.values()), 1 - decay)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._interchange(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._interchange(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._interchanged:  # stopped inside a validation; the writer is about to save
            self._interchange(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[LAST_STEP] = checkpoint[WEIGHTS]
        checkpoint[WEIGHTS] = {**checkpoint[WEIGHTS], **self._average}

    def _interchange(self, module: LightningModule) -> None:
        self._interchanged = not self._interchanged
        for name, weights in _averaged(module).items():
            before = weights.clone()
            weights.copy_(self._average[name])
            self._average[name].copy_(before)


def _averaged(module: LightningModule) -> dict[str, Tensor]:
    """The module's own tensors, not copies."""
    return {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
