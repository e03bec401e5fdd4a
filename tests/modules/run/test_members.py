"""Which run of an earlier call a member of a sweep is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from config.schema import TrainConfig
from modules.run.members import progress

MakeConfig = Callable[..., TrainConfig]
Record = Callable[..., Path]


@pytest.fixture
def config(make_config: MakeConfig, tmp_path: Path) -> MakeConfig:
    return lambda *more: make_config(f"run_root={tmp_path}/runs", "wandb.group_name=sweep", *more)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Leave a run folder behind, with a checkpoint of that step."""

    def record(config: TrainConfig, name: str, status: str = "stopped by SIGINT", step: int | None = None) -> Path:
        folder = tmp_path / "runs" / "RVT" / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
        (folder / "results.json").write_text(json.dumps({"status": status}))
        if step is not None:
            (folder / "checkpoints" / f"last_epoch=000-step={step}.ckpt").touch()
        return folder

    return record


def state(config: TrainConfig) -> str:
    found = progress(config)
    assert found is not None
    return found.state


def test_the_furthest_run_of_a_config_counts(config: MakeConfig, record: Record) -> None:
    mine = config()
    assert state(mine) == "new"
    record(mine, "a")
    assert state(mine) == "failed"
    folder = record(mine, "b", step=70)
    found = progress(mine)
    assert found is not None
    assert (found.state, found.run) == ("half-done", folder)
    assert "step 70" in found.where
    record(mine, "c", "finished early", step=90)
    assert state(mine) == "finished"


def test_what_changes_a_result_is_another_member(config: MakeConfig, record: Record) -> None:
    made = config()
    record(made, "a", "finished")

    def state_with(section: str, **changes: object) -> str:
        return state(made.model_copy(update={section: getattr(made, section).model_copy(update=changes)}))

    assert state_with("hardware", num_workers=made.hardware.num_workers.model_copy(update={"train": 3})) == "finished"
    assert state_with("checkpoint", keep_best=1) == "finished"
    assert state_with("training", learning_rate=0.5) == "new"
    assert state_with("training", max_steps=7) == "new"
    assert state_with("reproduce", seed_everything=2) == "new"
    assert state_with("reproduce", seed_everything=None) == "finished"  # the run has drawn one
    assert state_with("wandb", group_name="another") == "new"


def test_a_run_that_another_process_writes_is_left_to_it(config: MakeConfig, record: Record) -> None:
    mine = config()
    lock = record(mine, "a", "running", step=3) / ".lock"
    program = (
        f"import fcntl; f = open({str(lock)!r}, 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    )
    mine = config()
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert state(mine) == "running"
        other.communicate(b"\n")
    assert state(mine) == "half-done"


def test_a_check_leaves_no_run(config: MakeConfig) -> None:
    assert progress(config("check=true")) is None


def test_what_is_no_config_of_ours_is_passed_over(config: MakeConfig, record: Record) -> None:
    (record(config(), "a", "finished") / "config.yaml").write_text("dataset: [")
    assert state(config()) == "new"
