"""A full disk (which takes the right to mount) and a folder that becomes read-only while a run writes to it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modules.run.checkpoint_file import read_checkpoint
from modules.run.folder import step_of
from tests.reliability import faults
from tests.reliability.conftest import Train
from tests.runs import losses, run_folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB, tmp_path / "runs"."""
    disk = tmp_path / "runs"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def checkpoint(folder: Path) -> Path:
    """The newest; for a moment the one before it is still there."""
    return max((folder / "checkpoints").glob("last_*"), key=step_of)


def fill(disk: Path) -> Path:
    """Leave no free byte."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return path


OPTIONS = (
    "checkpoint.every_n_steps=5",
    "validation.limit_val_batches=1.0",
    "validation.val_check_interval=8",
    "logging.validation.high_dim.enable=true",
    "checkpoint.keep_best=0",
    "logger=[csv,tensorboard]",
)


def test_a_full_disk_is_reported_and_training_goes_on(train: Train, tmp_path: Path, small_disk: Path) -> None:
    program = train(*OPTIONS, "checkpoint.max_failures=1000", prepare=faults.steps_of_a_tenth_of_a_second)
    program.wait_for_text("Run folder")
    folder = run_folder(tmp_path)
    program.wait_for(lambda: list((folder / "checkpoints").glob("last_*")), "the first checkpoint")
    filler = fill(small_disk)
    before = checkpoint(folder)
    program.wait_for_text("CHECKPOINT NOT SAVED (3 in a row)")
    assert "No space left on device" in program.output()
    assert f"The one before it stays: {before}" in program.output()
    assert f"{folder}/metrics.csv CANNOT BE WRITTEN" in program.output()
    assert checkpoint(folder) == before
    read_checkpoint(before)

    filler.unlink()
    program.wait_for(lambda: checkpoint(folder) != before, "a checkpoint after some space has become free")
    kept = checkpoint(folder)
    program.wait_for(lambda: max(losses(folder)) >= step_of(kept))
    assert list(losses(folder)) == list(range(max(losses(folder)) + 1))  # rows waited in memory


def test_a_folder_that_becomes_read_only_ends_the_run_in_the_end(train: Train, tmp_path: Path) -> None:
    program = train(*OPTIONS, "checkpoint.max_failures=2", prepare=faults.slow_steps_without_roots_power)
    program.wait_for_text("Run folder")
    folder = run_folder(tmp_path)
    program.wait_for(lambda: list((folder / "checkpoints").glob("last_*")), "the first checkpoint")
    (folder / "checkpoints").chmod(0o555)
    before = checkpoint(folder)
    assert program.exit_code() == 2, program.output()
    assert "CHECKPOINT NOT SAVED (1 in a row)" in program.output()
    assert "Permission denied" in program.output()
    assert "2 checkpoints in a row could not be written" in program.output()
    assert "Traceback" not in program.output()
    assert checkpoint(folder) == before
    read_checkpoint(before)
