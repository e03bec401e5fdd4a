"""Checkpoints that are whole and hold what no run writes: refused before anything of them is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from callbacks.random_state import _random_state
from config.errors import UserError
from modules.run.checkpoint_content import check_content
from tests.runs import checkpoint_content

Change = Callable[[dict[str, Any]], object]
NAN = torch.tensor(float("nan"))


def writer(**changes: Any) -> dict[str, Any]:
    state = {"best": [{"file": "a.ckpt", "AP": 0.5, "step": 1}], "validation_pending": False, "epoch": 0}
    return {"CheckpointWriter": {**state, **changes}}


def with_numpy(*changes: Any) -> list[dict[str, Any]]:
    state = _random_state()
    state["numpy"] = [*changes, *state["numpy"][len(changes) :]]
    return [state]


def test_what_a_run_writes_passes() -> None:
    check_content(
        checkpoint_content(callbacks={**writer(), "Another": 1}, random_state=[_random_state()], more=object()),
        Path("a.ckpt"),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_step": "3"}, "global_step is not what a run writes"),
        ({"global_step": -1}, "global_step"),
        ({"state_dict": {"weight": NAN}}, "1 of 1 weights hold NaN"),
        ({"state_dict": {"weight": [1.0]}}, "state_dict.weight"),
        ({"state_dict": {"weight": torch.zeros(2, device="meta")}}, "no plain tensors"),
        ({"loops": {"fit_loop": {}}}, "loops.fit_loop is not"),
        ({"callbacks": writer(best=[{"file": 3, "AP": 0.5, "step": 1}])}, "callbacks.CheckpointWriter.best.0.file"),
        ({"callbacks": writer(best=[{"file": "a", "AP": float("nan"), "step": 1}])}, "CheckpointWriter.best.0.AP"),
        ({"pytorch-lightning_version": 3}, "pytorch-lightning_version"),
        ({"pytorch-lightning_version": "1.5.0"}, "pytorch-lightning_version"),
        ({"lr_schedulers": 3}, "lr_schedulers"),
        ({"state_dict": {"weight": torch.zeros(1).expand(10**6, 10**6)}}, "more than the file holds"),
        ({"hidden_state": [[(torch.zeros(1).expand(10**6, 10**6),)]]}, "more than the file holds"),
        ({"callbacks": writer(epoch=None)}, "callbacks.CheckpointWriter.epoch"),
        (
            {"callbacks": {**writer(), "RunRecord": {"history": [{"step": 1}], "seconds": 1.0}}},
            "history.0 is not .* lacks AP, epoch",
        ),
        ({"callbacks": {**writer(), "RunRecord": {"history": [], "seconds": float("inf")}}}, "RunRecord.seconds"),
        ({"EventDataModule": {"position": 1}}, "EventDataModule.batches_trained"),
        ({"current_model_state": {"weight": NAN}}, "1 of 1 weights hold NaN"),
        ({"average": {}}, "average is not"),
        ({"config": {"reproduce": {"seed_everything": "x"}}}, "config.reproduce.seed_everything"),
        ({"hidden_state": [[(1, 2)]]}, "hidden_state.0.0.0"),
        ({"random_state": [{**_random_state(), "torch": torch.zeros(3)}]}, "random_state.0"),
        ({"random_state": with_numpy(torch.zeros(3, dtype=torch.int64))}, "random_state.0"),
        ({"random_state": with_numpy(torch.from_numpy(np.arange(624)), 10**9)}, "random_state.0"),
        ({"random_state": [{**_random_state(), "python": [3, [1, 2], None]}]}, "random_state.0"),
    ],
)
def test_other_types_and_values_are_refused_with_their_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_content(checkpoint_content(**changes), Path("a.ckpt"))
    assert str(caught.value).startswith("a.ckpt")
    assert "\n" not in str(caught.value)
