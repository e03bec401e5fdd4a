"""RVT's keys that mean nothing here: warned about, or refused with what replaces them."""

from __future__ import annotations

import pytest

from config.errors import Problem
from config.retired import judge, retired_key, take_out


@pytest.mark.parametrize(
    ("key", "value", "replacement"),
    [
        ("wandb.artifact_local_file", "a.ckpt", "weights=a.ckpt"),
        ("wandb.artifact_name", "user/project/checkpoint:v1", "resume=PATH"),
        ("wandb.wandb_runpath", "user/project/1grv5kg6", "resume=RUN_ID"),
        ("wandb.resume_only_weights", True, "weights=PATH"),
        ("model.backbone.stage.s5.dim", 80, "model.backbone.stage.s5.state_dim=null"),
    ],
)
def test_refused_where_ignoring_would_change_the_run(key: str, value: object, replacement: str) -> None:
    verdict = judge(key, value, "on the command line")
    assert isinstance(verdict, Problem)
    assert replacement in verdict.message


@pytest.mark.parametrize(
    ("key", "value", "replacement"),
    [
        ("wandb.artifact_name", None, "resume=PATH"),
        ("wandb.resume_only_weights", False, "weights=PATH"),
        ("logging.ckpt_every_n_epochs", 1, "checkpoint.every_n_steps"),
        ("model.backbone.stage.s4.dim", 80, "no S4 cell"),
        ("logging.train.high_dim.enable", True, "logging.validation.high_dim"),
        ("logging.validation.high_dim.every_n_epochs", 1, "every validation"),
    ],
)
def test_warned_about_otherwise(key: str, value: object, replacement: str) -> None:
    verdict = judge(key, value, "")
    assert isinstance(verdict, str)
    assert replacement in verdict


@pytest.mark.parametrize("value", [False, "false", "False"])
def test_a_choice_of_one_is_read_and_ignored(value: object) -> None:
    assert judge("model.backbone.enable_masking", value, "") is None
    assert judge("model.backbone.stage.downsample.type", "patch", "") is None


def test_another_choice_is_refused() -> None:
    verdict = judge("model.backbone.stage.attention.use_torch_mha", True, "in a.yaml:3")
    assert isinstance(verdict, Problem)
    assert "allowed: false" in verdict.message


def test_keys_that_look_alike_are_not_retired() -> None:
    assert retired_key("logging.validation.high_dim.enable") is None
    assert retired_key("logging.train.metrics.compute") == "logging.train.metrics"


def test_taking_out_leaves_the_rest() -> None:
    raw = {"logging": {"train": {"metrics": {"compute": False}, "log_every_n_steps": 5}}, "model": "???"}
    assert take_out(raw) == {"logging.train.metrics": {"compute": False}}
    assert raw == {"logging": {"train": {"log_every_n_steps": 5}}, "model": "???"}
