"""Workers that die, hang or fail, and damaged chunks."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

from data.loader import explain_loader_failure, signals_held_back
from modules.run.checkpoint_file import read_checkpoint
from scripts.soak import damage_frame
from tests.conftest import FRAMES_FILE, REPRESENTATION
from tests.reliability import faults
from tests.reliability.conftest import Train
from tests.runs import losses, run_folder


def last_step(folder: Path) -> int:
    (path,) = (folder / "checkpoints").glob("last_*")
    return read_checkpoint(path)["global_step"]


def test_a_worker_that_is_killed_is_named_and_the_run_is_saved(train: Train, tmp_path: Path) -> None:
    program = train("hardware.num_workers.train=2")
    program.wait_for_text("training: step")
    folder = run_folder(tmp_path)
    program.wait_for(lambda: (folder / "metrics.csv").is_file())
    worker = program.workers()[0]
    os.kill(worker, signal.SIGKILL)
    assert program.exit_code() == 1, program.output()
    assert f"worker (pid {worker}) is killed by signal: Killed" in program.output()
    assert "out of memory" in program.output()
    assert f"Go on with resume={folder.name}" in program.output()
    assert last_step(folder) == len(losses(folder))


def test_a_worker_that_dies_while_it_is_waited_for(train: Train, tmp_path: Path) -> None:
    """hardware.loader_timeout_s is ten minutes here: the death itself must be seen."""
    program = train("hardware.num_workers.train=1", prepare=faults.die_in_worker_after_three_batches)
    assert program.exit_code() == 1, program.output()
    assert "is killed by signal: Killed" in program.output()
    assert last_step(run_folder(tmp_path)) in (2, 3)  # the death may be seen before the third batch is taken


def test_an_idle_worker_that_dies_is_found_before_it_is_waited_for(train: Train, tmp_path: Path) -> None:
    """The one for validation, in the step before a validation, which the resumed run makes up for."""
    options = ("hardware.num_workers.eval=1", "validation.limit_val_batches=1.0", "validation.val_check_interval=4")
    program = train(*options, prepare=faults.kill_children_in_step_7)
    assert program.exit_code() == 1, program.output()
    assert "is killed by signal: Killed" in program.output()
    folder = run_folder(tmp_path)
    assert last_step(folder) == 8
    assert train(*options, "resume=latest", "training.max_steps=9").exit_code() == 0
    history = json.loads((folder / "results.json").read_text())["history"]
    assert [entry["step"] for entry in history] == [4, 8]


def test_a_worker_that_dies_between_two_epochs_costs_no_step(train: Train, tmp_path: Path) -> None:
    options = ("hardware.num_workers.train=1", "training.max_steps=30", "training.lr_scheduler.total_steps=30")
    assert train(*options, "wandb.project_name=unbroken").exit_code() == 0
    program = train(*options, prepare=faults.kill_children_in_the_last_step_of_the_epoch)
    assert program.exit_code() == 1, program.output()
    assert "is killed by signal: Killed" in program.output()
    folder = run_folder(tmp_path)
    assert 0 < last_step(folder) == len(losses(folder)) < 30
    assert train(*options, "resume=latest").exit_code() == 0
    assert losses(folder) == losses(run_folder(tmp_path, "unbroken"))


def test_a_hanging_worker_shows_its_stack(train: Train, tmp_path: Path) -> None:
    program = train(
        "hardware.num_workers.train=1",
        "hardware.loader_timeout_s=10",
        prepare=faults.sleep_in_worker_after_three_batches,
    )
    assert program.exit_code() == 1, program.output()
    assert "DataLoader timed out after 10 seconds" in program.output()
    assert "hardware.loader_timeout_s" in program.output()
    assert "--- worker" in program.output()
    assert "faults.py" in program.output().partition("--- worker")[2]  # where it sleeps
    assert last_step(run_folder(tmp_path)) == 3


def test_an_error_inside_a_worker_saves(train: Train, tmp_path: Path) -> None:
    program = train("hardware.num_workers.train=1", prepare=faults.raise_in_worker_after_three_batches)
    assert program.exit_code() == 1
    assert "MemoryError: Caught MemoryError in DataLoader worker process 0" in program.output()
    assert last_step(run_folder(tmp_path)) == 3


def test_damaged_chunks_are_reported_and_too_many_end_the_run(train: Train, tmp_path: Path, data_set: Path) -> None:
    files = {split: data_set / split / "sequence_1" / REPRESENTATION / FRAMES_FILE for split in ("train", "val")}
    for path in files.values():
        damage_frame(path, 4)  # the check at the start looks at others
    options = ("validation.limit_val_batches=1.0", "validation.val_check_interval=4", "training.max_steps=8")
    program = train(*options)
    assert program.exit_code() == 0, program.output()
    folder = run_folder(tmp_path)
    written = (folder / "damaged_chunks.txt").read_text().splitlines()
    assert len(written) >= 3
    for path in files.values():
        assert any(str(path) in line and "frame" in line for line in written)
    assert len(losses(folder)) == 8
    assert all(float(loss) > 0 for loss, *_ in losses(folder).values())

    program = train(*options, "training.max_damaged_chunks=1", "wandb.project_name=strict")
    assert program.exit_code() == 2
    assert "2 damaged chunks, more than training.max_damaged_chunks=1" in program.output()
    assert "Traceback" not in program.output()
    last_step(run_folder(tmp_path, "strict"))


def test_a_dead_worker_s_signal_is_reported_even_if_pytorch_leaves_it_out() -> None:
    with signals_held_back():
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
        worker.start()
    worker.kill()
    worker.join()
    told = explain_loader_failure(RuntimeError(f"DataLoader worker (pid(s) {worker.pid}) exited unexpectedly"))
    assert f"DataLoader worker (pid {worker.pid}) is killed by signal: Killed. Workers" in told
