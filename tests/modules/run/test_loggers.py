from __future__ import annotations

import csv
from pathlib import Path

from modules.run.loggers import MetricsCsv


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_that_come_later_get_a_column_of_their_own(tmp_path: Path) -> None:
    logger = MetricsCsv(tmp_path)
    logger.log_metrics({"train/loss": 2.0}, 1)
    logger.log_metrics({"val/AP": 0.5}, 2)
    logger.log_metrics({"train/loss": 1.0}, 3)
    assert rows(tmp_path) == [
        {"step": "1", "train/loss": "2.0", "val/AP": ""},
        {"step": "2", "train/loss": "", "val/AP": "0.5"},
        {"step": "3", "train/loss": "1.0", "val/AP": ""},
    ]


def test_a_resumed_run_replaces_the_rows_of_steps_it_does_again(tmp_path: Path) -> None:
    first = MetricsCsv(tmp_path)
    for step in range(6):
        first.log_metrics({"train/loss": float(step)}, step)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("6")  # the run was killed while it wrote
    second = MetricsCsv(tmp_path)
    second.forget_from(3)
    second.log_metrics({"train/loss": 30.0}, 3)
    assert [row["train/loss"] for row in rows(tmp_path)] == ["0.0", "1.0", "2.0", "30.0"]
