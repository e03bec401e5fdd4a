"""A sweep as jobs of submitit's on this machine: members that fail, a stop, and what the second call makes."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.reliability.conftest import Train
from tests.runs import losses


def test_jobs_fail_alone_save_on_ctrl_c_and_go_on(train: Train, data_set: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    for split in ("train", "val"):
        (empty / split).mkdir(parents=True)
    grid = ("--multirun", "hydra/launcher=submitit_local", f"dataset.path=choice({data_set},{empty})")
    runs, long = tmp_path / "runs" / "project", "training.max_steps=2000"
    program = train(*grid, long, "checkpoint.every_n_steps=1000")
    program.wait_for(lambda: any(len(losses(file.parent)) > 2 for file in runs.glob("*/metrics.csv")), "steps")
    program.wait_for(lambda: len(list((tmp_path / "runs" / "multirun").glob("*/*.json"))), "the other's failure")
    program.kill_group(signal.SIGINT)
    assert program.exit_code() == 130, program.output()
    summary = program.output().rpartition("\nSweep:")[2]
    assert summary.startswith(" 1 half-done, 1 failed"), program.output()
    assert "no sequences" in summary or "2 faults" in summary
    (folder,) = (file.parent for file in runs.glob("*/checkpoints"))
    done = len(losses(folder))
    assert f"resume={folder}" in summary

    second = train("--multirun", f"dataset.path=choice({data_set},{empty})", long)
    second.wait_for_text("goes on")
    second.wait_for(lambda: len(losses(folder)) > done, "more steps")
    second.kill_group(signal.SIGINT)
    assert second.exit_code() == 130
    assert len(list(runs.iterdir())) == 1
