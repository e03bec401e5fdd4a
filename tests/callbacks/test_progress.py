"""What a log file sees of a training, where there is no terminal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.trainer.states import TrainerFn

from callbacks.progress import ProgressLines

MODULE: Any = SimpleNamespace(stage=None)


def trainer(step: int, loss: float | None = 2.5, **more: Any) -> Any:
    metrics = {} if loss is None else {"train/loss": torch.tensor(loss)}
    state: dict[str, Any] = {
        "is_global_zero": True,
        "max_steps": 10,
        "current_epoch": 1,
        "sanity_checking": False,
        "num_val_batches": [3],
        "state": SimpleNamespace(fn=TrainerFn.FITTING),
    }
    return SimpleNamespace(global_step=step, callback_metrics=metrics | more.pop("metrics", {}), **(state | more))


def test_a_line_now_and_then_and_one_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines(every_s=3600)
    lines.on_train_start(trainer(4), MODULE)
    for step in (5, 6, 10):
        lines.on_train_batch_end(trainer(step), MODULE, None, None, 0)
    first, last = capsys.readouterr().out.splitlines()
    assert first == "training: step 4 of 10"
    assert last.startswith("step 10/10  epoch 1  ")
    assert last.endswith("ETA 0:00:00  loss 2.500")


def test_a_validation_says_when_it_begins_and_what_came_out(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines()
    lines.on_validation_start(trainer(7), None)
    lines.on_validation_end(trainer(7, metrics={"val/AP": torch.tensor(0.25), "val/AP_50": torch.tensor(0.5)}), None)
    assert capsys.readouterr().out.splitlines() == [
        "validating at step 7: 3 batches",
        "val/AP 0.2500  val/AP_50 0.5000",
    ]


def test_other_processes_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines(every_s=0)
    lines.on_train_start(trainer(0, is_global_zero=False), None)
    lines.on_train_batch_end(trainer(1, is_global_zero=False), None, None, None, 0)
    assert capsys.readouterr().out == ""
