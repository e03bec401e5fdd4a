"""Behaviour of modules/reports/run_table.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.errors import UserError
from modules.reports.run_table import difference_table, find_runs, read_run, read_runs, run_table, stages_of
from modules.reports.stages import stages_table


def write_run(folder: Path, config: dict[str, Any], results: dict[str, Any] | None = None, command: str = "") -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "command.txt").write_text(command)
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results))
    return folder


def results(ap: float, **more: Any) -> dict[str, Any]:
    best = {"step": 900, "AP": ap, "AP_50": 0.5, "AP_L": -1, "AP/car": 0.4, "AP_50/car": 0.6, "AP_group/small": 0.1}
    return {
        "status": "finished",
        "steps": 1000,
        "duration_s": 7200.0,
        "parameters": 18_500_000,
        "best": best,
        "last": {**best, "AP": 0.0},
        **more,
    }


def test_row_of_a_finished_run(tmp_path: Path) -> None:
    command = "python train.py +experiment/gen4='plain_lstm_640x360_baseline.yaml' dataset.path=/data\n"
    run = write_run(tmp_path / "RVT" / "abc", {"training": {"learning_rate": 0.1}}, results(0.3), command)
    cells = read_run(run).cells
    assert cells["run"] == "RVT/abc"
    assert cells["experiment"] == "gen4/plain_lstm_640x360_baseline"
    assert (cells["AP"], cells["best step"], cells["steps"], cells["hours"]) == (0.3, 900, 1000, 2)
    assert (cells["AP car"], cells["M parameters"]) == (0.4, 18.5)
    assert cells["AP_L"] is None  # no ground truth
    assert not any("small" in name for name in cells)  # a group of classes


def test_validations_of_a_run_have_columns(tmp_path: Path) -> None:
    run = write_run(tmp_path / "abc", {}, results(0.3))
    for split, ap in (("val", 0.35), ("test", 0.33)):
        folder = run / f"validation_{split}_best"
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps({"metrics": {"AP": ap}, "protocol": {"split": split}}))
        (folder / "config.yaml").write_text("{}")
    cells = read_run(run).cells
    assert (cells["val AP"], cells["test AP"]) == (0.35, 0.33)
    assert find_runs([tmp_path]) == [run]


STAGES = [
    {"training": {"max_steps": 60}, "dataset": {"frame_hw": [360, 640]}},
    {"training": {"max_steps": 40}, "dataset": {"frame_hw": [720, 1280]}},
]
ENDED = {"stage": 1, "first_step": 0, "last_step": 60, "frame_hw": [360, 640], "checkpoint": "stage=1.ckpt", "AP": 0.2}
STAGED = {"dataset": {"resolution_hw": [720, 1280], "frame_hw": [720, 1280]}, "training": {"stages": STAGES}}


@pytest.mark.parametrize(("stage", "frames"), [(1, "360 x 640"), (2, "720 x 1280")])
def test_a_run_with_stages_tells_which_its_figures_are_of(tmp_path: Path, stage: int, frames: str) -> None:
    best = {"step": 50 * stage, "stage": stage, "AP": 0.3}
    run = write_run(tmp_path / "abc", STAGED, {"best": best, "stages": [ENDED] * (stage - 1)})
    cells = read_run(run).cells
    assert (cells["stage"], cells["frames"], cells["AP"]) == (f"{stage} of 2", frames, 0.3)


def test_a_validation_of_another_stage_s_checkpoint_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "abc", STAGED, {"best": {"step": 100, "stage": 2, "AP": 0.3}, "stages": [ENDED]})
    protocol = {"split": "val", "resolution_hw": [720, 1280]}
    for name, stage in (("stage=1_epoch=000-step=60.ckpt", "1"), ("epoch=000-step=100-val_AP=0.30.ckpt", None)):
        folder = run / f"validation_val_{stage}"
        folder.mkdir()
        told = {"checkpoint": f"/runs/{name}", "metrics": {"AP": 0.25}, "protocol": protocol}
        (folder / "results.json").write_text(json.dumps(told))
        os.utime(folder / "results.json", (len(name), 10_000 if stage is None else 5_000))
        assert read_run(run).cells["val stage"] == stage
    (rows,) = stages_table(stages_of(run)).rows
    assert rows == [1, "0 to 60", "360 x 640", 0.2, None, None, "stage=1.ckpt"]


def test_run_that_broke_off_is_a_row_with_gaps(tmp_path: Path) -> None:
    run = write_run(tmp_path / "abc", {"dataset": {"name": "gen1"}})
    (run / "metrics.csv").write_text("step,train/loss\n50,3.5\n100,3.1\n")
    cells = read_run(run).cells
    assert (cells["experiment"], cells["status"], cells["steps"], cells["AP"]) == ("gen1", "no results", 100, None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", b"{"),
        ("results.json", b"[1, 2]"),
        ("results.json", b'{"best": {"AP": "high"}}'),
        ("results.json", b'{"best": {"step": 1e400}}'),
        ("results.json", b"[" * 100_000),
        ("config.yaml", b"- 1\n- 2\n"),
        ("config.yaml", b"a: [\n"),
        ("config.yaml", b"\xff\xff"),
        ("config.yaml", b"[" * 5_000),
        ("command.txt", b"python 'train.py\n"),
        ("metrics.csv", b'step\n"' + b"x" * 200_000),
        ("validation_val_best/results.json", b'{"metrics": 1}'),
    ],
)
def test_a_run_that_cannot_be_read_keeps_its_row_and_hides_no_other(tmp_path: Path, name: str, content: bytes) -> None:
    sound = write_run(tmp_path / "p" / "sound", {"a": 1}, results(0.3))
    broken = write_run(tmp_path / "p" / "broken", {"a": 2}, None if name == "metrics.csv" else results(0.2))
    (broken / name).parent.mkdir(exist_ok=True)
    (broken / name).write_bytes(content)
    rows, (fault,) = read_runs([broken, sound])
    assert str(broken / name) in fault
    assert [(row.name, row.cells["status"]) for row in rows] == [
        ("p/broken", "cannot be read"),
        ("p/sound", "finished"),
    ]


def test_text_from_files_cannot_break_a_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "p" / "one", {"a": "x"}, results(0.3, status="two\u2028lines\x1b[31m"))
    table = run_table([read_run(run)]).format()
    table.encode()
    assert len(table.splitlines()) == 3
    assert "two\\u2028lines\\x1b[31m" in table


def test_runs_are_sorted_by_a_column_with_gaps_last(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / "b", {}, results(0.2))),
        read_run(write_run(tmp_path / "none", {})),
        read_run(write_run(tmp_path / "a", {}, results(0.3))),
    ]

    def names(**options: Any) -> list[str]:
        return [str(row[0]).split("/")[1] for row in run_table(runs, **options).rows]

    assert names() == ["a", "b", "none"]
    assert names(reverse=True) == ["b", "a", "none"]
    assert names(sort="run") == ["a", "b", "none"]
    assert names(sort="ap CAR")[2] == "none"
    with pytest.raises(UserError, match="no such column"):
        names(sort="speed")


def test_differences_between_configs(tmp_path: Path) -> None:
    one = read_run(write_run(tmp_path / "x" / "one", {"a": {"b": 1, "c": True}, "same": [1, 2]}))
    two = read_run(write_run(tmp_path / "x" / "two", {"a": {"b": 2, "c": True}, "same": [1, 2], "new": None}))
    table = difference_table([one, two])
    assert list(table.header) == ["key", "x/one", "x/two"]
    assert table.rows == [["a.b", "1", "2"], ["new", None, "null"]]


def test_no_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run below"):
        find_runs([tmp_path])
    with pytest.raises(UserError, match="is not a folder"):
        find_runs([tmp_path / "nowhere"])
