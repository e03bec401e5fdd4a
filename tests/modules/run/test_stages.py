"""Trainings in stages: one run whose frames, network and settings change on the way."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from config.errors import UserError
from config.loading import load_validation_config
from modules.detection import DetectionModule
from modules.run.checkpoint_file import read_checkpoint
from modules.run.stages import for_checkpoint
from tests.conftest import CHANNELS, FRAMES_FILE, REPRESENTATION, small, write_frames
from tests.runs import NETWORK, Start, losses, run_folder

STAGES = (
    "training.stages=[{training: {max_steps: 4, learning_rate: 0.001}, dataset: {frame_hw: [8, 12]}},"
    "{training: {max_steps: 3}, dataset: {frame_hw: [16, 24]}, batch_size: {train: 3},"
    " model: {fpn: {in_stages: [1, 2, 3, 4]}}}]"
)
OPTIONS = (
    STAGES,
    "training.lr_scheduler.pct_start=0.5",
    "model.backbone.stage.attention.drop_path=0.2",
)


@pytest.fixture
def sizes(data_set: Path) -> None:
    """Frames of the sensor's 16 x 24 pixels beside those of 8 x 12, for each sequence of the data set."""
    for half in data_set.glob(f"*/*/{REPRESENTATION}/{FRAMES_FILE}"):
        length = len(np.load(half.with_name("timestamps_us.npy")))
        values = np.arange(1, length + 1, dtype=np.uint8)[:, None, None, None]
        frames = np.broadcast_to(values, (length, CHANNELS, 16, 24))
        write_frames(half.with_name("event_representations.h5"), frames)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """SIGTERM in the middle of a training step."""
    original = DetectionModule.training_step

    def stopped(self: DetectionModule, *arguments: object) -> object:
        if self.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    monkeypatch.setattr(DetectionModule, "training_step", stopped)


def names(run: Path) -> list[str]:
    return sorted(re.sub(r"AP=.*", "AP", path.name) for path in (run / "checkpoints").glob("*.ckpt"))


@pytest.mark.usefixtures("sizes")
def test_stages_follow_one_another_and_a_resume_anywhere_equals_the_unbroken_run(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(*OPTIONS, project="unbroken") == 0
    told = capsys.readouterr().out
    unbroken = run_folder(tmp_path, "unbroken")

    assert sorted(losses(unbroken)) == list(range(7))
    rates = [float(losses(unbroken)[step][2]) for step in (0, 4)]
    assert rates == pytest.approx([1e-3 / 20, 2e-4 / 20], rel=0.1), "each schedule begins with its stage"
    kept = ["stage=1_epoch=000-step=4.ckpt", "stage=2_epoch=000-step=7.ckpt"]
    assert [name for name in names(unbroken) if not name.startswith("epoch")] == ["last_epoch=000-step=7.ckpt", *kept]
    lines = ["Stage 2 of 2 begins: steps 4 to 7", "  training.learning_rate: 0.001 -> 0.0002"]
    assert "\n".join([*lines, "  dataset.frame_hw: [8, 12] -> [16, 24]"]) in told
    assert "newly initialised" in told, "of the fourth scale"
    results = json.loads((unbroken / "results.json").read_text())
    assert [(entry["step"], entry["stage"]) for entry in results["history"]] == [(4, 1), (7, 2)]
    first, second = results["stages"]
    assert [(stage["checkpoint"], stage["frame_hw"]) for stage in (first, second)] == [
        (name, hw) for name, hw in zip(kept, [[8, 12], [16, 24]], strict=True)
    ]
    assert (first["at_last_stage"]["AP"] >= 0, second["at_last_stage"]) == (True, None)
    for name, stage in zip(kept, results["stages"], strict=True):
        assert re.search(rf"Stage {stage['stage']}: .*{name}  \(val/AP {stage['AP']:.4f} at ", told)

    with monkeypatch.context() as context:
        stop_at(context, 5)
        assert start(*OPTIONS, project="stopped") == 128 + signal.SIGTERM
    assert start(*OPTIONS, "resume=latest", project="stopped") == 0
    stopped = run_folder(tmp_path, "stopped")
    check_equal(unbroken, stopped)
    read, again = (json.loads((run / "environment.json").read_text())["dataset"] for run in (unbroken, stopped))
    assert [(each["stage"], each["frame_hw"], each["train"]["sequences"]) for each in read["stages"]] == [
        (1, [8, 12], 4),
        (2, [16, 24], 4),
    ]
    assert again == read, "also where the run was resumed in its second stage"
    end = stopped / "checkpoints" / kept[0]
    assert start(*OPTIONS, f"resume={end}", project="stopped") == 0
    check_equal(unbroken, stopped)

    assert read_checkpoint(end)["config"]["dataset"]["frame_hw"] == [8, 12], "what other programs read it by"
    validation = [*(text for text in small(tmp_path / "data") if "num_workers.train" not in text), *NETWORK, *OPTIONS]
    own, lines = for_checkpoint(load_validation_config([*validation, f"checkpoint={end}"]))
    assert (own.dataset.loaded_hw, own.model.fpn.in_stages) == ((8, 12), (2, 3, 4))
    assert lines == [
        "Stage 1 of 2, on frames of 12 x 8, those of stage 1",
        "stage=2 validates it on the last stage's, 24 x 16",
    ]
    other, _ = for_checkpoint(load_validation_config([*validation, f"checkpoint={end}", "stage=2"]))
    assert (other.dataset.loaded_hw, other.model.fpn.in_stages) == ((16, 24), (2, 3, 4))

    changed = STAGES.replace("max_steps: 4", "max_steps: 4, weight_decay: 0.1")
    with pytest.raises(UserError, match=r"stage 1 was trained with training\.weight_decay=0\.0, and .* has 0.1 now"):
        start(*OPTIONS, changed, "resume=latest", project="stopped")
    with pytest.raises(UserError, match="was trained in stages, and the config has none"):
        start(*OPTIONS, "training.stages=null", "resume=latest", project="stopped")


def check_equal(unbroken: Path, stopped: Path) -> None:
    assert losses(stopped) == losses(unbroken)
    assert names(stopped) == names(unbroken)
    results = [json.loads((run / "results.json").read_text()) for run in (unbroken, stopped)]
    for key in ("history", "stages", "status"):
        assert results[0][key] == results[1][key]
    for name in (name for name in names(unbroken) if name.startswith("stage")):
        ends = [read_checkpoint(run / "checkpoints" / name)["state_dict"] for run in (unbroken, stopped)]
        assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
