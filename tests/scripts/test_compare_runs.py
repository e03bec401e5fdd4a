"""Behaviour of scripts/compare_runs.py."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from modules.reports.run_table import RunRow, read_run
from scripts.compare_runs import compare
from tests.modules.reports.test_run_table import results, write_run


@pytest.fixture
def runs(tmp_path: Path) -> list[RunRow]:
    return [
        read_run(write_run(tmp_path / "p" / "one", {"training": {"learning_rate": 0.1}, "same": 1}, results(0.2))),
        read_run(write_run(tmp_path / "p" / "two", {"training": {"learning_rate": 0.2}, "same": 1}, results(0.3))),
    ]


@pytest.mark.parametrize("style", ["text", "markdown"])
def test_table_and_differences(runs: list[RunRow], style: str) -> None:
    text = compare(runs, "AP", False, style)
    assert text.index("p/two") < text.index("p/one")
    assert "What differs" in text
    assert "training.learning_rate" in text
    assert "same" not in text


def test_csv_is_one_table_with_the_differing_keys(runs: list[RunRow]) -> None:
    rows = list(csv.DictReader(compare(runs, "run", False, "csv").splitlines()))
    assert [(row["run"], float(row["AP"]), row["training.learning_rate"]) for row in rows] == [
        ("p/one", 0.2, "0.1"),
        ("p/two", 0.3, "0.2"),
    ]


def sized(tmp_path: Path, name: str, frame_hw: list[int], min_side: int = 20) -> RunRow:
    section = {"resolution_hw": [720, 1280], "downsample_by_factor_2": True, "frame_hw": frame_hw}
    section["eval"] = {"box_filter": {"min_side": min_side}}
    best = {"step": 1, "AP": 0.3, "AP_S": 0.1, "AP_S_sensor": 0.2}
    return read_run(write_run(tmp_path / "p" / name, {"dataset": section}, {"best": best}))


@pytest.mark.parametrize(
    ("min_side", "words"), [(20, "AP and AP_50 are of the same boxes"), (10, "box_filter.min_side differ")]
)
def test_sizes_on_the_sensor_come_first_where_frames_differ(tmp_path: Path, min_side: int, words: str) -> None:
    half, three_quarters = sized(tmp_path, "one", [360, 640]), sized(tmp_path, "two", [540, 960], min_side)
    text = compare([half, three_quarters], "AP", False, "text")
    header = text.splitlines()[1].split()
    assert header.index("frames") < header.index("AP") < header.index("AP_S_sensor") < header.index("AP_S")
    assert header[-1] == "AP_S"
    assert "Frames of 360 x 640, 540 x 960: AP_S, AP_M and AP_L are of different objects" in text
    assert words in text
    assert "AP_S_sensor" not in compare([half], "AP", False, "text")


def test_a_validation_at_another_size_than_the_runs_is_told(tmp_path: Path) -> None:
    run = sized(tmp_path, "one", [360, 640])
    for name, hw in (("validation_val", [720, 1280]), ("validation_test", [360, 640])):
        protocol = {"split": name.split("_")[1], "resolution_hw": hw}
        (run.folder / name).mkdir()
        (run.folder / name / "results.json").write_text(json.dumps({"metrics": {"AP": 0.4}, "protocol": protocol}))
    cells = read_run(run.folder).cells
    assert [cells[key] for key in ("val AP", "val frames", "test AP", "test frames")] == [0.4, "720 x 1280", 0.4, None]


def test_one_run_differs_from_nothing(runs: list[RunRow]) -> None:
    assert "differs" not in compare(runs[:1], "AP", False, "text")
