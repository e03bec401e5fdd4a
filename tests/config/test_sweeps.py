"""What a grid is made of, which of its members are made, and what is said of the others."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.command_line import hydra_command
from config.errors import UserError
from config.sweeps import Kind, Progress, Record, group_name

Outcome = list[Any]


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, Outcome]]:
    """Runs a grid of learning rates; gives the exit code and the configs that were trained."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "train").mkdir(parents=True)

    def run(*overrides: str, task: Callable[[Any], int] = lambda config: 0, **known: Any) -> tuple[int, Outcome]:
        trained: Outcome = []

        def main(config: Any, argv: list[str]) -> int:
            trained.append(config)
            return task(config)

        command = ["--multirun", "model=maxvit_yolox/default", "dataset=gen4", "dataset.path=data", "hardware.gpus=0"]
        monkeypatch.setattr(sys, "argv", ["train.py", *command, *overrides])
        try:
            hydra_command("train", main, Kind(**known))()
        except SystemExit as end:
            return int(end.code or 0), trained
        return 0, trained

    return run


Run = Callable[..., tuple[int, Outcome]]
RATES = "training.learning_rate=0.1,0.2,0.3"


def rates(trained: Outcome) -> list[float]:
    return [config.training.learning_rate for config in trained]


def fail(error: Exception | None) -> int:
    if error is not None:
        raise error
    return 0


def test_a_failing_member_stops_no_other_and_is_named(sweep: Run, capsys: pytest.CaptureFixture[str]) -> None:
    errors = {0.1: UserError("labels are damaged"), 0.2: ValueError("a bug")}
    code, trained = sweep(RATES, task=lambda config: fail(errors.get(config.training.learning_rate)))
    assert (code, rates(trained)) == (1, [0.1, 0.2, 0.3])
    summary = capsys.readouterr().out.rpartition("Sweep:")[2]
    assert summary.startswith(" 2 failed, 1 finished")
    failed = [line for line in summary.splitlines() if line.startswith("  failed")]
    assert ["0.1  labels are damaged" in failed[0], "0.2  ValueError: a bug" in failed[1]] == [True, True]
    alone = [line for line in summary.splitlines() if "python train.py" in line]
    assert ["learning_rate=0.1" in alone[0], "learning_rate=0.2" in alone[1]] == [True, True]
    assert "--multirun" not in summary


def test_a_stop_signal_ends_the_sweep_with_its_code(sweep: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, trained = sweep("training.learning_rate=0.1,0.2", task=lambda config: 130)
    assert (code, rates(trained)) == (130, [0.1])
    assert "not begun       training.learning_rate=0.2" in capsys.readouterr().out


def test_what_is_finished_is_left_and_what_is_half_done_goes_on(sweep: Run, tmp_path: Path) -> None:
    states = {0.1: Progress("finished"), 0.2: Progress("half-done", run=tmp_path / "abc"), 0.3: Progress("running")}
    code, trained = sweep(
        RATES,
        progress=lambda config: states[config.training.learning_rate],
        resumed=lambda config, run: config.model_copy(update={"resume": str(run)}),
    )
    assert [(config.training.learning_rate, config.resume) for config in trained] == [(0.2, str(tmp_path / "abc"))]
    assert code == 1  # one runs elsewhere: not all of it is there


def test_members_share_a_group_which_other_values_of_the_grid_join(
    sweep: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    _, trained = sweep("training.learning_rate=0.1,1e-1,0.2", progress=lambda config: Progress())
    assert rates(trained) == [0.1, 0.2]
    assert "1 of 3 runs repeat" in capsys.readouterr().out
    assert len({config.wandb.group_name for config in trained}) == 1
    assert str(trained[0].wandb.group_name).startswith("learning_rate-")
    name = group_name(["a=1", "b=2"], ["b"])
    assert name == group_name(["b=3", "a=1", "hardware.num_workers.train=1"], ["b"])
    assert name != group_name(["a=2", "b=2"], ["b"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra/launcher=typo", "There are: basic"),
        ("hydra/sweeper=optuna", "a grid of values"),
        ("hydra.sweeper.params.training=1", "a grid of values"),
        ("hydra.launcher.tasks_per_node=2", "a member is one task"),
        ("training.learning_rate=interval(0,1)", "no end of values"),
        ("resume=latest", "leave resume out"),
        ("wandb.group_name=a,b", "give it one value"),
        ("hydra.sweep.dir=/proc/x", "cannot be made"),
        ("training.lerning_rate=1,2", "did you mean training.learning_rate"),
        ("training.learning_rate=1,,2", "cannot be read"),
    ],
)
def test_what_cannot_work_is_told_before_anything_starts(
    sweep: Run, override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, trained = sweep(override)
    assert (code, trained) == (2, [])
    assert message in capsys.readouterr().err


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    sweep: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert sweep("hydra/launcher=submitit_slurm")[0] == 2
    command = capsys.readouterr().err.partition("needs packages: ")[2].split()
    assert command[1:5] == ["-m", "pip", "install", "-r"]
    assert "submitit" in Path(command[5]).read_text()


def test_a_launcher_without_a_sweep_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "hydra/launcher=basic"])
    with pytest.raises(SystemExit):
        hydra_command("train", lambda config, argv: 0)()
    assert "without --multirun" in capsys.readouterr().err


def test_a_record_that_is_damaged_tells_nothing(tmp_path: Path) -> None:
    record = Record(tmp_path, "a")
    record.write(2, "why")
    assert record.read() == (2, "why")
    (tmp_path / "a.json").write_text("{")
    assert record.read() == (None, "")
