from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from config.names import key_tree
from config.record import recordable
from config.schema import TrainConfig

TREE = key_tree(TrainConfig)


def recorded(*overrides: str, path: str = "data") -> list[str]:
    cfg = OmegaConf.create({"dataset": {"path": path}})
    return recordable(["train.py", *overrides], TREE, cfg)[1:]


def test_paths_are_recorded_as_they_hold_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert recorded("dataset=gen4", "dataset.path=data/gen4", "+run_root=~/runs") == [
        "dataset=gen4",
        f"dataset.path={tmp_path}/data/gen4",
        "+run_root=/home/somebody/runs",
    ]
    assert recorded("weights='two words.ckpt'", path="/data") == [f"weights={tmp_path}/two words.ckpt"]
    assert recorded("dataset.path=${oc.env:DATA}", "weights=null") == ["dataset.path=${oc.env:DATA}", "weights=null"]


def test_a_relative_path_of_a_file_is_recorded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recorded("dataset=mine", path="data/mine") == ["dataset=mine", f"dataset.path={tmp_path}/data/mine"]
    assert recorded("dataset=mine", path="/data/mine") == ["dataset=mine"]


def test_secrets_given_to_hydra_are_not_recorded() -> None:
    kept = ["hydra.job.env_set.OMP_NUM_THREADS=2", "hydra.verbose=true"]
    assert recorded("hydra.job.env_set.WANDB_API_KEY=abc", *kept, path="/data") == kept
