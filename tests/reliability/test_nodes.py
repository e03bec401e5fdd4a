"""Two nodes: tasks as srun starts them, two agents of torchrun, and the real srun where there is one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modules.run.checkpoint_file import read_checkpoint
from scripts.programs import ROOT, Program, wait_until
from tests.reliability import faults
from tests.reliability.conftest import Train, arguments
from tests.runs import losses, run_folder

OPTIONS = ("batch_size.train=2", "training.lr_scheduler.total_steps=1000", "training.max_steps=24")
Tasks = Callable[..., tuple[Program, Program]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def tasks(train: Train, tmp_path: Path) -> Tasks:
    """Start two tasks on two nodes of one SLURM job, each with what it prints in a file of its own."""

    def start(*overrides: str, start: Train = train, **options: object) -> tuple[Program, Program]:
        common = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "SLURM_JOB_ID": "7",
            "SLURM_STEP_ID": "0",
            "SLURM_NTASKS": "2",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
            "SLURM_STEP_NODELIST": "n[1-2]",
            "SLURM_LOCALID": "0",
            **options.pop("environment", {}),
        }
        first, second = (
            start(
                *overrides,
                environment={
                    **common,
                    "SLURM_PROCID": str(rank),
                    "SLURM_NODEID": str(rank),
                    "SLURMD_NODENAME": f"n{rank + 1}",
                },
                **options,
            )
            for rank in range(2)
        )
        return first, second

    return start


@pytest.fixture
def scontrol(tmp_path: Path) -> Path:
    """A folder for PATH with a scontrol that says what it was asked for in `asked`."""
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho "JobId=7 JobState=RUNNING"\n')
    program.chmod(0o755)
    return program.parent


def wait_for_steps(program: Program, tmp_path: Path, count: int, project: str = "project") -> Path:
    program.wait_for(lambda: list((tmp_path / "runs" / project).glob("*/metrics.csv")), "the run")
    folder = run_folder(tmp_path, project)
    program.wait_for(lambda: len(losses(folder)) >= count, f"{count} steps")
    return folder


def test_a_job_is_requeued_once_and_goes_on_as_if_nothing_had_been(
    tasks: Tasks, train: Train, tmp_path: Path, scontrol: Path
) -> None:
    for program in tasks(*OPTIONS, "wandb.project_name=unbroken"):
        assert program.exit_code() == 0, program.output()
    unbroken = run_folder(tmp_path, "unbroken")

    path = {"PATH": f"{scontrol}{os.pathsep}{os.environ['PATH']}"}
    job = (*OPTIONS, "training.requeue=true")
    programs = tasks(*job, environment=path, prepare=faults.steps_of_a_tenth_of_a_second)
    folder = wait_for_steps(programs[0], tmp_path, 3)
    for program in programs:
        program.kill(signal.SIGUSR1)
    for program in programs:
        assert program.exit_code() == 128 + signal.SIGUSR1, program.output()
    assert (tmp_path / "asked").read_text().splitlines() == ["show job --oneliner 7", "requeue 7"]
    (last,) = (folder / "checkpoints").glob("*")
    assert read_checkpoint(last)["global_step"] == len(losses(folder)) < 24
    environment = json.loads((folder / "environment.json").read_text())
    assert (environment["launcher"], environment["world_size"]) == ("srun", 2)
    assert environment["nodes"] == ["n1", "n2"]

    for program in tasks(*job, environment={**path, "SLURM_RESTART_COUNT": "1"}):
        assert program.exit_code() == 0, program.output()
        assert "sync_dist" not in program.output()
    assert run_folder(tmp_path) == folder
    assert losses(folder) == losses(unbroken)
    _validate_on_two_nodes_as_on_one(tasks, folder, tmp_path)


def _validate_on_two_nodes_as_on_one(tasks: Tasks, folder: Path, tmp_path: Path) -> None:
    kept = ("dataset", "model", "batch_size.eval", "hardware", "run_root")
    typed = [text for text in arguments(tmp_path / "data", tmp_path / "runs") if text.startswith(kept)]
    typed = [text for text in typed if not text.startswith("dataset.train")]
    (last,) = (folder / "checkpoints").glob("last_*")
    command = [*typed, f"checkpoint={last}", "model.postprocess.confidence_threshold=0.001"]

    def start(*_: str, **options: object) -> Program:
        return Program(command, tmp_path / "log.txt", script="validation.py", **options)

    programs = [*tasks(start=start)]
    for program in programs:
        assert program.exit_code() == 0, program.output()
    alone = start()
    assert alone.exit_code() == 0, alone.output()
    two, one = sorted(folder.glob("validation_*"))
    assert json.loads((two / "environment.json").read_text())["world_size"] == 2
    results = [json.loads((each / "results.json").read_text()) for each in (two, one)]
    assert results[0]["protocol"]["labelled_frames"] == 10
    assert results[0] == results[1]
    files = sorted(path.relative_to(two) for path in two.rglob("*_bbox.npy"))
    assert files
    assert all((two / file).read_bytes() == (one / file).read_bytes() for file in files)


def test_a_task_that_is_killed_ends_the_other_with_its_name(tasks: Tasks, train: Train, tmp_path: Path) -> None:
    programs = tasks("batch_size.train=2", "checkpoint.every_n_steps=5", prepare=faults.steps_of_a_tenth_of_a_second)
    folder = wait_for_steps(programs[0], tmp_path, 7)
    programs[1].kill(signal.SIGKILL)
    started = time.monotonic()
    assert programs[0].exit_code(patience_s=60) == 1
    assert time.monotonic() - started < 60
    assert "rank 1 on n2 has ended without a word" in programs[0].output()
    assert f"go on with resume={folder.name}" in programs[0].output()
    assert "Traceback" not in programs[0].output()
    (last,) = (folder / "checkpoints").glob("last_*")
    assert read_checkpoint(last)["global_step"] % 5 == 0


def test_a_task_that_hangs_is_ended_when_another_is_killed(tasks: Tasks) -> None:
    """As one does that waits in NCCL for the other."""
    programs = tasks("batch_size.train=2", prepare=faults.sleep_in_step_3_with_little_grace)
    programs[0].wait_for_text("here", times=2)
    programs[1].kill(signal.SIGKILL)
    assert programs[0].exit_code(patience_s=60) == 1
    assert "rank 1 on n2 has ended without a word" in programs[0].output()


@pytest.mark.parametrize(
    ("override", "prepare", "told"),
    [
        ("hardware.num_nodes=3", None, "srun --nodes=3 --ntasks-per-node=1 python"),
        ("hardware.num_workers.train=1", faults.little_shared_memory_on_the_second_node, "on n2: /dev/shm has"),
        ("resume=nothing", None, "no such run"),
        ("training.max_steps=1", faults.other_data_on_the_second_node, "the nodes hold different data"),
    ],
)
def test_what_is_wrong_is_told_once_and_ends_both(
    tasks: Tasks, tmp_path: Path, override: str, prepare: Callable[[], None] | None, told: str
) -> None:
    programs = tasks("batch_size.train=2", override, prepare=prepare)
    for program in programs:
        assert program.exit_code() == 2, program.output()
    assert programs[0].output().count(told) == 1, programs[0].output()
    assert not list((tmp_path / "runs").glob("*/*"))


def agents(data_set: Path, tmp_path: Path, *overrides: str) -> list[subprocess.Popen[bytes]]:
    """Start two agents of torchrun with a process each; what each prints is in agent0.txt and agent1.txt."""
    typed = {text.partition("=")[0] for text in overrides}
    kept = [text for text in arguments(data_set, tmp_path / "runs") if text.partition("=")[0] not in typed]
    port = free_port()
    started = []
    for rank in range(2):
        meet = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}", "--master-addr=127.0.0.1"]
        command = [sys.executable, "-m", "torch.distributed.run", *meet, f"--master-port={port}", "train.py"]
        with (tmp_path / f"agent{rank}.txt").open("wb") as log:
            started.append(
                subprocess.Popen(
                    [*command, *kept, *overrides],
                    cwd=ROOT,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
    return started


def test_an_agent_of_torchrun_that_is_killed_ends_all_in_order(data_set: Path, tmp_path: Path) -> None:
    pair = agents(data_set, tmp_path, "batch_size.train=2")
    try:
        wait_until(lambda: list((tmp_path / "runs" / "project").glob("*/metrics.csv")))
        folder = run_folder(tmp_path)
        wait_until(lambda: len(losses(folder)) >= 3)
        pair[1].kill()
        assert pair[0].wait(60) != 0
    finally:
        for agent in pair:
            agent.kill()
    told = (tmp_path / "agent0.txt").read_text()
    assert "the launcher of rank 1 has died" in told, told
    (last,) = (folder / "checkpoints").glob("last_*")
    assert read_checkpoint(last)["global_step"] == len(losses(folder))
    assert json.loads((folder / "environment.json").read_text())["world_size"] == 2


@pytest.mark.slow
def test_a_run_goes_from_one_node_to_two_and_back(tasks: Tasks, train: Train, tmp_path: Path) -> None:
    alone = train("batch_size.train=2", "training.max_steps=6")
    assert alone.exit_code() == 0, alone.output()
    programs = tasks("batch_size.train=2", "training.max_steps=12", "resume=latest")
    for program in programs:
        assert program.exit_code() == 0, program.output()
    assert "the checkpoint is of 1 processes, now there are 2" in programs[0].output()
    alone = train("batch_size.train=2", "training.max_steps=18", "resume=latest")
    assert alone.exit_code() == 0, alone.output()
    assert "the checkpoint is of 2 processes, now there are 1" in alone.output()
    assert list(losses(run_folder(tmp_path))) == list(range(18))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_of_torchrun_that_is_killed_ends_all(data_set: Path, tmp_path: Path, victim: int) -> None:
    pair = agents(data_set, tmp_path, "batch_size.train=2", "checkpoint.every_n_steps=2")
    try:
        wait_until(lambda: list((tmp_path / "runs" / "project").glob("*/checkpoints/last_*")))
        children = Path(f"/proc/{pair[victim].pid}/task/{pair[victim].pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        assert all(agent.wait(60) == 1 for agent in pair)
    finally:
        for agent in pair:
            agent.kill()
    told = (tmp_path / f"agent{1 - victim}.txt").read_text()
    assert f"rank {victim} on" in told, told
    assert "has ended without a word" in told, told
    assert list((run_folder(tmp_path) / "checkpoints").glob("last_*"))


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("srun") is None or os.system("timeout 10 sinfo -h > /dev/null 2>&1"), reason="no SLURM"
)
def test_srun(data_set: Path, tmp_path: Path) -> None:
    """The real one: two tasks, one run."""
    overrides = [*(t for t in arguments(data_set, tmp_path / "runs") if not t.startswith("training.max")), *OPTIONS[2:]]
    command = ["srun", "--ntasks=2", "--kill-on-bad-exit=1", sys.executable, "train.py"]
    done = subprocess.run([*command, *overrides], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = run_folder(tmp_path)
    assert len(losses(folder)) == 24
    assert json.loads((folder / "environment.json").read_text())["world_size"] == 2
