from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from config.errors import UserError
from modules.checkpoint_file import read_checkpoint
from modules.detection import DetectionModule
from tests.runs import Start, losses, run_folder


def poison(monkeypatch: pytest.MonkeyPatch, steps: range) -> None:
    """Make the frames' features, and so loss, gradient, batch-norm statistics and hidden state, NaN at these steps."""
    original = DetectionModule.training_step

    def training_step(self: DetectionModule, batch: object, batch_idx: int) -> torch.Tensor:
        handle = None
        if self.global_step in steps:
            handle = self.detector.backbone.register_forward_hook(
                lambda module, inputs, output: (
                    [maps * torch.nan for maps in output[0]],
                    [(hidden * torch.nan, cell * torch.nan) for hidden, cell in output[1]],
                )
            )
        try:
            return original(self, batch, batch_idx)
        finally:
            if handle is not None:
                handle.remove()

    monkeypatch.setattr(DetectionModule, "training_step", training_step)


def test_a_step_that_is_not_finite_changes_nothing_and_is_written_down(
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poison(monkeypatch, range(2, 4))
    assert start("training.max_steps=6", "validation.limit_val_batches=0") == 0

    folder = run_folder(tmp_path)
    skipped = [json.loads(line) for line in (folder / "skipped_steps.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in skipped] == [2, 3]
    assert all(address.startswith("sequence_") for address in skipped[0]["frames"])
    assert ["nan" in row for row in losses(folder).values()] == [False, False, True, True, False, False]
    content = read_checkpoint(next((folder / "checkpoints").glob("last_*")))
    for name, value in content["state_dict"].items():
        assert torch.isfinite(value).all(), name
    steps = {int(state["step"]) for state in content["optimizer_states"][0]["state"].values()}
    assert steps == {4}


def test_too_many_in_a_row_end_the_run(
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poison(monkeypatch, range(2, 100))
    with pytest.raises(UserError, match=r"step 4:.*3 steps in a row.*training.learning_rate"):
        start(
            "training.max_steps=50",
            "training.max_skipped_steps=3",
            "validation.limit_val_batches=0",
        )
    content = read_checkpoint(next((run_folder(tmp_path) / "checkpoints").glob("last_*")))
    assert content["global_step"] == 5
    steps = {int(state["step"]) for state in content["optimizer_states"][0]["state"].values()}
    assert steps == {2}  # nothing since
    assert all(torch.isfinite(value).all() for value in content["state_dict"].values())
