"""`kill -9` at random moments: nothing is corrupt, at most one interval is lost, and the resumed run equals another."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from modules.run.checkpoint_file import TEMPORARY_PREFIX, read_checkpoint
from modules.run.folder import step_of
from tests.reliability.conftest import Train
from tests.runs import losses, run_folder

INTERVAL = 3
OPTIONS = (
    "validation.limit_val_batches=1.0",
    "validation.val_check_interval=7",
    "training.lr_scheduler.total_steps=100000",  # the same schedule whatever training.max_steps is
    f"checkpoint.every_n_steps={INTERVAL}",
    "model.backbone.stage.attention.drop_path=0.2",  # draws random numbers in each step
    "hardware.num_workers.train=1",
)


def newest_step(folder: Path) -> int:
    steps = []
    for path in (folder / "checkpoints").glob("*.ckpt"):
        read_checkpoint(path)  # whatever bears a final name is whole
        steps.append(step_of(path))
    return max(steps, default=0)


def steps_done(folder: Path) -> int:
    return max(losses(folder), default=-1) + 1 if (folder / "metrics.csv").is_file() else 0


def kill_and_resume(train: Train, folder: Path, times: int, seed: int) -> None:
    """Kill a run `times` times, each some steps after it has begun, and let it go on."""
    rng = random.Random(seed)
    environment = {"TMPDIR": "/dev/shm"}  # another file system than the run's
    for attempt in range(times):
        before = steps_done(folder)
        resume = f"resume={folder.name}"
        program = train(*OPTIONS, "training.max_steps=100000", resume, environment=environment)
        wanted = min(before, newest_step(folder)) + rng.randrange(2, 8)
        program.wait_for(lambda wanted=wanted: steps_done(folder) >= wanted, f"step {wanted}")
        time.sleep(rng.random() / 4)
        program.kill(signal.SIGKILL)
        assert program.exit_code() == 137, program.output()
        assert newest_step(folder) > steps_done(folder) - 1 - INTERVAL, (attempt, program.output())


def check_kills(train: Train, tmp_path: Path, times: int, seed: int) -> None:
    first = train(*OPTIONS, "training.max_steps=4")
    assert first.exit_code() == 0, first.output()
    folder = run_folder(tmp_path)
    (folder / "checkpoints" / f"{TEMPORARY_PREFIX}leftover.ckpt.tmp").write_bytes(b"cut short")
    kill_and_resume(train, folder, times, seed)
    end = steps_done(folder) + 2
    last = train(*OPTIONS, f"training.max_steps={end}", "resume=latest")
    assert last.exit_code() == 0, last.output()
    assert not list((folder / "checkpoints").glob(f"{TEMPORARY_PREFIX}*"))
    assert len(list((folder / "checkpoints").glob("last_*"))) == 1

    unbroken = train(*OPTIONS, f"training.max_steps={end}", "wandb.project_name=unbroken")
    assert unbroken.exit_code() == 0, unbroken.output()
    assert losses(folder) == losses(run_folder(tmp_path, "unbroken"))
    assert list(losses(folder)) == list(range(end))


def test_killed_twice(train: Train, tmp_path: Path) -> None:
    check_kills(train, tmp_path, times=2, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_fifty_times(train: Train, tmp_path: Path) -> None:
    check_kills(train, tmp_path, times=50, seed=2)
