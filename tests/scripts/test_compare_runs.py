"""Behaviour of scripts/compare_runs.py."""

from __future__ import annotations

import csv
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


def test_one_run_differs_from_nothing(runs: list[RunRow]) -> None:
    assert "differs" not in compare(runs[:1], "AP", False, "text")
