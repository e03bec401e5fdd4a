from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from callbacks.weight_average import WeightAverage


class Module(nn.Sequential):
    """A weight that is the step's number, and a batch norm."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
        self.accumulation = SimpleNamespace(between_steps=True)

    def set(self, value: float) -> None:
        with torch.no_grad():
            self[0].weight.fill_(value)
            self[1].running_mean.fill_(-value)


def averaged(callback: WeightAverage, module: Module) -> tuple[dict[str, Any], dict[str, Any]]:
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    callback.on_save_checkpoint(None, module, checkpoint)
    return checkpoint["state_dict"], checkpoint["current_model_state"]


def test_the_average_is_that_of_a_loop_by_hand_and_validation_sees_it() -> None:
    callback, module, expected = WeightAverage(0.5), Module(), 0.0
    module.set(0)
    callback.on_fit_start(None, module)
    callback.on_train_start(None, module)
    for step in range(1, 9):
        module.set(step)
        module.steps_of_stage = step
        module.accumulation.between_steps = False  # a batch of a step that is not complete
        callback.on_train_batch_end(None, module, None, None, 0)
        module.accumulation.between_steps = True
        callback.on_train_batch_end(None, module, None, None, 0)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    average, last = averaged(callback, module)
    torch.testing.assert_close(average["0.weight"].item(), expected)
    torch.testing.assert_close(average["1.running_mean"].item(), -expected)
    assert last["0.weight"].item() == 8
    assert average["1.num_batches_tracked"] == last["1.num_batches_tracked"]

    callback.on_validation_epoch_start(None, module)
    torch.testing.assert_close(module[0].weight.item(), expected)
    callback.on_exception(None, module, KeyboardInterrupt())  # the writer saves now
    assert module[0].weight.item() == 8
    torch.testing.assert_close(averaged(callback, module)[0]["0.weight"].item(), expected)
    callback.on_exception(None, module, KeyboardInterrupt())  # outside a validation
    assert module[0].weight.item() == 8
