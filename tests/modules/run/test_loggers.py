from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from modules.run.folder import RunFolder
from modules.run.loggers import MetricsCsv, TolerantWandbLogger, build_loggers


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_that_come_later_get_a_column_of_their_own(tmp_path: Path) -> None:
    logger = MetricsCsv(tmp_path)
    logger.log_metrics({"train/loss": 2.0}, 1)
    logger.log_metrics({"val/AP": 0.5}, 2)
    logger.log_metrics({"train/loss": 1.0}, 3)
    assert rows(tmp_path) == [
        {"step": "1", "train/loss": "2.0", "val/AP": ""},
        {"step": "2", "train/loss": "", "val/AP": "0.5"},
        {"step": "3", "train/loss": "1.0", "val/AP": ""},
    ]


def test_a_resumed_run_replaces_the_rows_of_steps_it_does_again(tmp_path: Path) -> None:
    first = MetricsCsv(tmp_path)
    for step in range(6):
        first.log_metrics({"train/loss": float(step)}, step)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("6")  # the run was killed while it wrote
    second = MetricsCsv(tmp_path)
    second.forget_from(3)
    second.log_metrics({"train/loss": 30.0}, 3)
    assert [row["train/loss"] for row in rows(tmp_path)] == ["0.0", "1.0", "2.0", "30.0"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run's folder, and none of WandB's variables."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    return RunFolder.create(tmp_path / "project")


def test_wandbs_variables_mean_what_its_documentation_says(
    run: RunFolder, make_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    values = {
        "MODE": "dryrun",
        "PROJECT": "shapes",
        "ENTITY": "team",
        "TAGS": "a,b",
        "DIR": str(tmp_path / "elsewhere"),
    }
    for name, value in values.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    _, logger = build_loggers(make_config("+notes.goal=small ones"), run)
    assert isinstance(logger, TolerantWandbLogger)
    experiment = logger.experiment
    assert experiment.notes == "goal: small ones\n"
    assert (experiment.project, experiment.entity, experiment.tags) == ("shapes", "team", ("a", "b"))
    logger.finalize("success")
    assert len(list((tmp_path / "elsewhere").glob(f"wandb/offline-run-*-{run.run_id}/*.wandb"))) == 1
    assert not list(run.path.glob("wandb*"))
    said = capsys.readouterr().out
    assert f"Later: wandb sync {tmp_path}/elsewhere/wandb/offline-run-*-{run.run_id}" in said
    assert all(f"WANDB_{name}={value}" in said for name, value in values.items())
    assert make_config("wandb.project_name=typed").wandb.project_name == "typed"


def test_disabled_wandb_writes_nothing(
    run: RunFolder, make_config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert [type(logger) for logger in build_loggers(make_config(), run)] == [MetricsCsv]
    assert not list(run.path.glob("wandb*"))
    assert "WANDB_MODE=disabled" in capsys.readouterr().out
