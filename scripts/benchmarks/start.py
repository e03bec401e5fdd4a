"""From the command to the first training step on a prepared data set, imports included."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scripts.benchmarks.measuring import Row
from scripts.benchmarks.recordings import Scene

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [
    "model=maxvit_yolox/default",
    "+experiment/toy=demo",
    "hardware.num_workers.eval=0",
    "training.max_steps=1",
    "validation.limit_val_batches=0",
    "logging.train.log_every_n_steps=1",
    "logger=csv",
]
IMPORTS = "from config.interpreter import quick_imports\nwith quick_imports():\n    import modules.run.entry"


def start(scene: Scene, rounds: int, overrides: Sequence[str]) -> list[Row]:
    """Seconds until the loss of a first step of the demo's network and resolution stands in metrics.csv."""
    scene = replace(scene, sensor_hw=(360, 640))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", *COMMAND, *overrides, *scene.prepare(Path(folder), num_recordings=3)]
        seconds = [_first_step([*command, f"run_root={folder}/runs_{number}"]) for number in range(rounds)]
    name = "time to the end of the first step, demo's network, {} x {}".format(*scene.sensor_hw)
    imports = [_imports() for _ in range(rounds)]
    return [Row(name, "s", seconds, target="<= 6 s"), Row("of it, imports", "s", imports)]


def _first_step(command: list[str]) -> float:
    run_root = Path(command[-1].partition("=")[2])
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds = None
    while process.poll() is None:
        if seconds is None and any(path.read_text().count("\n") > 1 for path in run_root.glob("*/*/metrics.csv")):
            seconds = time.perf_counter() - started
        time.sleep(0.02)
    if process.returncode or seconds is None:
        output = process.stdout.read() if process.stdout is not None else ""
        sys.exit(f"{' '.join(command)}\n{output}")
    return seconds


def _imports() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"{IMPORTS}\nimport os; os._exit(0)"], cwd=ROOT, check=True)
    return time.perf_counter() - started
