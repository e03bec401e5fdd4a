"""`check=true`: what a run will take, without leaving anything."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from config.errors import UserError
from tests.runs import Start


def test_check_times_a_few_steps_and_leaves_nothing(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start("check=true", "training.max_steps=3600") == 0
    said = {line.partition(":")[0]: line.partition(":")[2] for line in capsys.readouterr().out.splitlines()}
    assert "parameters, input (" in said["Network"]
    assert "4 sequences" in said["Training"]
    assert "3 sequences" in said["Validation"]
    assert "MiB" in said["Memory"]
    assert "per checkpoint" in said["Disk"]
    assert "h for training.max_steps=3600" in said["Time"]
    assert not list((tmp_path / "runs").rglob("*"))


def test_check_refuses_labels_that_the_start_would_refuse(start: Start) -> None:
    with pytest.raises(UserError, match="copy_paste follows objects by track_id"):
        start("check=true", "dataset.data_augmentation.stream.copy_paste.prob=0.1")


def test_check_refuses_weights_that_the_start_would_refuse(start: Start, tmp_path: Path) -> None:
    assert start("training.max_steps=1", "validation.limit_val_batches=0") == 0
    (file,) = (tmp_path / "runs").rglob("last*.ckpt")
    assert start("check=true", f"weights={file}") == 0
    with pytest.raises(UserError, match=r"belongs to another model than the config describes"):
        start("check=true", f"weights={file}", "model.fpn.in_stages=[1,2,3,4]")


def test_a_stage_that_does_not_fit_is_named(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.run.activations.psutil.virtual_memory", lambda: SimpleNamespace(available=0))
    with pytest.raises(UserError, match=r"^stage 1 of 1: batch_size\.train=4 at 12 x 8 keeps"):
        start("check=true", "training.stages=[{training: {max_steps: 3}}]")
