from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

from modules.loggers import MetricsCsv

ROOT = Path(__file__).parents[1]


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


SCRIPT = """
import sys
from pathlib import Path
from config.loading import load_train_config
from modules.loggers import build_loggers
from modules.run_folder import RunFolder
run = RunFolder(Path(sys.argv[1]))
config = load_train_config(["dataset=gen4", "model=maxvit_yolox/plain_lstm", "dataset.path=."])
loggers = build_loggers(config, run, {"training": {"max_steps": 1}})
for logger in loggers:
    logger.log_metrics({"val/AP": 0.5}, 1)
    logger.finalize("success")
print(len(loggers), "loggers")
"""


def test_wandb_without_a_key_logs_offline_and_asks_nothing(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=ROOT,
        env={**environment, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "2 loggers" in done.stdout, done.stderr
    assert f"wandb sync {tmp_path}/wandb/offline-run-" in done.stdout
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert (tmp_path / "metrics.csv").is_file()
