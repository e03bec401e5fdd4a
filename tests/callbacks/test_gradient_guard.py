from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from pytorch_lightning.plugins.precision.amp import MixedPrecision

from config.errors import UserError
from config.hardware import Device
from modules.detection import DetectionModule
from modules.run.checkpoint_file import read_checkpoint
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


@pytest.fixture
def float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float16 with a gradient scaler, as on a GPU, from a scale that is too high for some steps."""
    original = MixedPrecision.__init__

    def on_cpu(self: MixedPrecision, precision: str, device: str, scaler: object = None) -> None:
        original(self, "16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**16))

    monkeypatch.setattr(MixedPrecision, "__init__", on_cpu)
    monkeypatch.setattr("modules.run.start.decide_device", lambda *_, **__: Device("cpu", (), "16-mixed", ()))


@pytest.mark.usefixtures("float16")
def test_a_scale_that_is_too_high_is_no_fault(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start("training.max_steps=3", "validation.limit_val_batches=0") == 0
    content = read_checkpoint(next((run_folder(tmp_path) / "checkpoints").glob("last_*")))
    scale = content["MixedPrecision"]["scale"]
    assert scale == 2.0**13  # halved at each of the three
    assert {int(state["step"]) for state in content["optimizer_states"][0]["state"].values()} == {0}
    assert not (run_folder(tmp_path) / "skipped_steps.jsonl").exists()
    assert "not finite" not in capsys.readouterr().out
    assert all(hidden.any() for rank in content["hidden_state"] for hidden, _ in rank)  # the lanes go on


@pytest.mark.usefixtures("float16")
def test_a_loss_that_is_not_finite_is_a_fault_in_float16(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, range(2, 4))
    assert start("training.max_steps=4", "validation.limit_val_batches=0") == 0
    folder = run_folder(tmp_path)
    skipped = [json.loads(line) for line in (folder / "skipped_steps.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in skipped] == [2, 3]
    content = read_checkpoint(next((folder / "checkpoints").glob("last_*")))
    assert all(value.isfinite().all() for value in content["state_dict"].values())
    assert not any(hidden.any() for rank in content["hidden_state"] for hidden, _ in rank)


@pytest.mark.usefixtures("float16")
def test_gradients_of_float16_are_clipped_as_others(start: Start, tmp_path: Path) -> None:
    """After a dozen steps the scale fits; norms are those of the gradients then, not of the scaled ones."""
    assert start("training.max_steps=12", "validation.limit_val_batches=0") == 0
    norms = [float(row[1]) for row in losses(run_folder(tmp_path)).values()]
    assert not math.isfinite(norms[0])
    assert 0 < norms[-1] < 1000  # the scale is above 50
