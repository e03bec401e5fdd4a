"""Two processes on the CPU, as torchrun starts them: one run, one decision to stop, one evaluation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch.distributed

from modules.run.checkpoint_file import read_checkpoint
from modules.run.folder import step_of
from scripts.programs import ROOT, Program, wait_until
from tests.reliability import faults
from tests.reliability.conftest import Train, arguments
from tests.runs import losses, run_folder

OPTIONS = (
    "batch_size.train=2",
    "training.lr_scheduler.total_steps=1000",
    "validation.limit_val_batches=1.0",
    "validation.val_check_interval=12",
)
Pair = Callable[..., tuple[Program, Program]]


@pytest.fixture
def pair(train: Train, tmp_path: Path) -> Pair:
    """Start two processes that find each other through the environment and the store that torchrun would give them."""
    stores = []

    def start(*overrides: str, **options: object) -> tuple[Program, Program]:
        stores.append(torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
        common = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(stores[-1].port),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "test",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        first, second = (
            train(*OPTIONS, *overrides, environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, **options)
            for rank in range(2)
        )
        return first, second

    return start


def test_two_processes_train_stop_and_go_on_together(pair: Pair, train: Train, tmp_path: Path) -> None:
    for program in pair("training.max_steps=24", "wandb.project_name=unbroken"):
        assert program.exit_code() == 0, program.output()
    unbroken = run_folder(tmp_path, "unbroken")
    results = json.loads((unbroken / "results.json").read_text())
    assert [entry["step"] for entry in results["history"]] == [12, 24]
    assert results["protocol"]["labelled_frames"] == 10  # all of the validation set, each once

    programs = pair("training.max_steps=1000")
    programs[0].wait_for(lambda: list((tmp_path / "runs" / "project").glob("*/metrics.csv")))
    folder = run_folder(tmp_path)
    programs[0].wait_for(lambda: len(losses(folder)) >= 3)
    programs[1].kill(signal.SIGTERM)  # one of them only
    for program in programs:
        assert program.exit_code() == 143, program.output()
    (last,) = (folder / "checkpoints").glob("last_*")
    content = read_checkpoint(last)
    assert content["global_step"] == len(losses(folder)) in (10, 20)
    assert len(content["hidden_state"]) == len(content["random_state"]) == 2

    for program in pair("training.max_steps=24", "resume=latest"):
        assert program.exit_code() == 0, program.output()
    assert losses(folder) == losses(unbroken)

    alone = train(*OPTIONS, "training.max_steps=26", "resume=latest")
    assert alone.exit_code() == 0, alone.output()
    assert "the checkpoint is of 2 processes, now there are 1" in alone.output()
    assert list(losses(folder)) == list(range(26))


def test_a_gradient_that_is_not_finite_in_one_process_is_skipped_in_both(pair: Pair, tmp_path: Path) -> None:
    for program in pair("training.max_steps=6", prepare=faults.not_finite_in_step_3_of_the_second_process):
        assert program.exit_code() == 0, program.output()
    folder = run_folder(tmp_path)
    skipped = [json.loads(line) for line in (folder / "skipped_steps.jsonl").read_text().splitlines()]
    assert sorted((entry["rank"], entry["step"]) for entry in skipped) == [(0, 3), (1, 3)]
    (last,) = (folder / "checkpoints").glob("last_*")
    content = read_checkpoint(last)
    assert all(torch.isfinite(value).all() for value in content["state_dict"].values())
    assert all(torch.isfinite(part).all() for rank in content["hidden_state"] for stage in rank for part in stage)


def test_a_signal_to_save_reaches_both(pair: Pair, tmp_path: Path) -> None:
    programs = pair("training.max_steps=1000", prepare=faults.steps_of_a_tenth_of_a_second)
    programs[0].wait_for(lambda: list((tmp_path / "runs" / "project").glob("*/metrics.csv")))
    folder = run_folder(tmp_path)
    programs[0].wait_for(lambda: len(losses(folder)) >= 3)
    programs[1].kill(signal.SIGUSR1)
    programs[0].wait_for(lambda: list((folder / "checkpoints").glob("last_*")), "the checkpoint")
    (last,) = (folder / "checkpoints").glob("last_*")
    programs[0].wait_for(lambda: max(losses(folder)) > step_of(last), "steps after it")


@pytest.fixture
def launch(train: Train) -> Train:
    """Start one process, which has Lightning start the second, as with `hardware.gpus=[0,1]`."""
    return partial(train, "batch_size.train=2", environment={"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"})


def test_a_stop_is_not_cut_short_by_lightning(launch: Train, tmp_path: Path) -> None:
    """It looks every five seconds for children that have failed, and kills the first process if there are any."""
    program = launch(prepare=faults.seven_seconds_of_farewell)
    program.wait_for(lambda: list((tmp_path / "runs" / "project").glob("*/metrics.csv")))
    folder = run_folder(tmp_path)
    program.wait_for(lambda: len(losses(folder)) >= 3)
    (child,) = program.workers()
    program.kill(signal.SIGTERM)
    assert program.exit_code() == 143, program.output()
    assert program.output().count(f"go on with resume={folder.name}") == 1
    assert not program.is_alive(child)


def test_lightnings_process_ends_with_the_first(launch: Train, tmp_path: Path) -> None:
    program = launch()
    program.wait_for(lambda: list((tmp_path / "runs" / "project").glob("*/metrics.csv")))
    (child,) = program.workers()
    program.kill(signal.SIGKILL)
    assert program.exit_code() == 137
    wait_until(lambda: not program.is_alive(child))


def test_a_sweep_starts_new_processes_for_each_run(launch: Train, tmp_path: Path) -> None:
    sweep = ("--multirun", "training.learning_rate=1e-4,2e-4", "training.max_steps=3")
    program = launch(*sweep, "wandb.project_name=sweep")
    assert program.exit_code() == 0, program.output()
    runs = list((tmp_path / "runs" / "sweep").iterdir())
    assert [list(losses(run)) for run in runs] == [[0, 1, 2]] * 2
    assert program.output().count("Validate it:") == 2


@pytest.mark.slow
def test_torchrun(data_set: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py"]
    kept = [text for text in arguments(data_set, tmp_path / "runs") if not text.startswith(("training.max", "valid"))]
    overrides = [*kept, "training.max_steps=13", *OPTIONS[2:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *overrides], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(losses(run_folder(tmp_path))) == 13
