"""Behaviour of modules/run/requeue.py: a job that is started again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from config.errors import UserError
from modules.run import requeue
from modules.run.requeue import restarts, run_before_restart, slurm_job


def test_the_id_of_an_arrays_task_names_array_and_number() -> None:
    job = {"SLURM_JOB_ID": "12"}
    assert slurm_job({}) is None
    assert slurm_job(job) == "12"
    assert slurm_job({**job, "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "3"}) == "10_3"


def test_restarts_of_slurm_and_of_torchrun() -> None:
    assert restarts({"SLURM_RESTART_COUNT": "2"}) == 2
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    ranks = dict.fromkeys(("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"), "1")
    assert restarts({**torchrun, **ranks}) == 1


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs: of this job, of this job by another command, of another job."""
    monkeypatch.setattr(requeue, "job_names", lambda: ["slurm:c:7"])
    for name, job, command in (("own", "7", "a=1"), ("other", "7", "a=2"), ("foreign", "8", "a=1")):
        run = tmp_path / name
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "last_epoch=000-step=1.ckpt").touch()
        (run / "command.txt").write_text(f"python train.py {command}\n")
        (run / "environment.json").write_text(json.dumps({"job": [f"slurm:c:{job}"]}))
    return tmp_path


COMMAND = ["train.py", "a=1"]


def test_a_job_knows_its_run_by_its_id_and_the_command(project: Path) -> None:
    assert run_before_restart(project, COMMAND) == project / "own"
    assert run_before_restart(project, ["train.py", "a=3"]) is None


def test_a_run_without_a_checkpoint_is_none_to_go_on_with(project: Path) -> None:
    next((project / "own" / "checkpoints").iterdir()).unlink()
    assert run_before_restart(project, COMMAND) is None


def test_two_runs_of_one_command_in_one_job_must_be_told_apart(project: Path) -> None:
    (project / "foreign" / "environment.json").write_text(json.dumps({"job": ["slurm:c:7"]}))
    with pytest.raises(UserError, match=r"foreign, own.*resume=ID"):
        run_before_restart(project, COMMAND)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (None, "no scontrol here.*scontrol requeue 7"),
        ('echo "JobState=COMPLETING"', "for good"),
        ("[ $1 = show ] && echo JobState=RUNNING || { echo disabled >&2; exit 1; }", "scontrol requeue 7: disabled"),
        ("echo JobState=RUNNING", "Requeued: SLURM starts job 7 again, which goes on with run abc"),
    ],
)
def test_what_becomes_of_a_wish(script: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if script is not None:
        (tmp_path / "scontrol").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert re.search(told, requeue.requeue("abc"))
