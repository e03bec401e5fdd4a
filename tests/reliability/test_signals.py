"""Real signals to the process and to its group: the step ends, a checkpoint is written, the exit code tells which."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from modules.run.checkpoint_file import read_checkpoint
from modules.run.folder import step_of
from tests.reliability import faults
from tests.reliability.conftest import Train
from tests.runs import losses, run_folder


def only_checkpoint(folder: Path) -> Path:
    (path,) = (folder / "checkpoints").iterdir()
    read_checkpoint(path)
    return path


def checkpoint_steps(folder: Path) -> list[int]:
    return [step_of(path) for path in (folder / "checkpoints").glob("*.ckpt")]


def steps_logged(folder: Path) -> int:
    path = folder / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.is_file() else 0


@pytest.mark.parametrize(
    ("signum", "to_group", "workers"), [("SIGTERM", False, 0), ("SIGHUP", True, 2), ("SIGINT", True, 1)]
)
def test_a_signal_in_training_saves(train: Train, tmp_path: Path, signum: str, to_group: bool, workers: int) -> None:
    number = signal.Signals[signum]
    program = train(f"hardware.num_workers.train={workers}")
    program.wait_for_text("Run folder")
    folder = run_folder(tmp_path)
    program.wait_for(lambda: steps_logged(folder) >= 3)
    started = program.workers()
    assert len(started) >= workers
    (program.kill_group if to_group else program.kill)(number)
    assert program.exit_code() == 128 + number, program.output()
    assert step_of(only_checkpoint(folder)) == len(losses(folder)) >= 3
    assert f"stopped by {signum}; go on with resume={folder.name}" in program.output()
    assert "Traceback" not in program.output()
    assert not any(program.is_alive(pid) for pid in started)


def test_sigusr1_saves_and_training_goes_on(train: Train, tmp_path: Path) -> None:
    program = train()
    program.wait_for_text("training: step")
    folder = run_folder(tmp_path)
    program.kill(signal.SIGUSR1)
    program.wait_for(lambda: checkpoint_steps(folder))
    (first,) = checkpoint_steps(folder)
    program.kill(signal.SIGUSR1)
    program.wait_for(lambda: max(checkpoint_steps(folder), default=0) > first)


def test_a_second_ctrl_c_ends_at_once(train: Train) -> None:
    program = train(prepare=faults.sleep_in_step_3)
    program.wait_for_text("here")
    program.kill_group(signal.SIGINT)
    program.wait_for_text("SIGINT: finishing this step, then saving")
    program.kill_group(signal.SIGINT)
    assert program.exit_code() == 130


def test_before_the_first_step_a_signal_ends_the_run_at_once(train: Train, tmp_path: Path) -> None:
    program = train(prepare=faults.sleep_at_the_start)
    program.wait_for_text("here")
    program.kill(signal.SIGTERM)
    assert program.exit_code() == 143
    assert "Traceback" not in program.output()


def test_a_signal_in_validation_ends_it_and_resume_makes_up_for_it(train: Train, tmp_path: Path) -> None:
    options = ("training.max_steps=6", "validation.limit_val_batches=1.0", "validation.val_check_interval=4")
    program = train(*options, prepare=faults.slow_validation)
    program.wait_for_text("validating at step 4")
    program.kill_group(signal.SIGHUP)
    assert program.exit_code() == 129, program.output()
    assert step_of(only_checkpoint(run_folder(tmp_path))) == 4
    again = train(*options, "resume=latest")
    assert again.exit_code() == 0, again.output()
    assert again.output().count("val/AP_50") == 1
    assert list(losses(run_folder(tmp_path))) == list(range(6))


def test_a_signal_while_the_loader_waits_saves_at_once(train: Train, tmp_path: Path) -> None:
    program = train("hardware.num_workers.train=1", prepare=faults.sleep_in_worker_after_three_batches)
    program.wait_for(lambda: "here" in program.output() and steps_logged(run_folder(tmp_path)) == 3)
    (worker,) = program.workers()
    os.kill(program.pid, signal.SIGTERM)
    assert program.exit_code() == 143, program.output()
    assert step_of(only_checkpoint(run_folder(tmp_path))) == 3
    assert not program.is_alive(worker)
