"""The whole way once: toy recordings, preprocessing, training, validation, summary. `make demo` runs it.

python scripts/demo.py      writes datasets/toy_raw, datasets/toy and a run in runs/demo
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from modules.reports.tables import FIGURES, figures_table

ROOT = Path(__file__).resolve().parents[1]
RAW, DATA, PROJECT = ROOT / "datasets/toy_raw", ROOT / "datasets/toy", ROOT / "runs/demo"
MODEL = ["dataset=toy", f"dataset.path={DATA}", "+experiment/toy=demo", "wandb.project_name=demo", "logger=csv"]


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    started = time.monotonic()
    _step("Toy recordings", "scripts/make_toy_dataset.py", str(RAW))
    _step("Preprocessing", "scripts/preprocess.py", str(RAW), str(DATA), "dataset=toy", "workers=2")
    before = _runs()
    _step("Training", "train.py", *MODEL)
    run = (_runs() - before).pop()
    training = json.loads((run / "results.json").read_text())
    checkpoint = run / "checkpoints" / (training["best_checkpoint"] or training["last_checkpoint"])
    before = set(run.glob("validation_*"))
    _step(
        "Validation",
        "validation.py",
        *MODEL,
        f"checkpoint={checkpoint}",
        "model.postprocess.confidence_threshold=0.001",
    )
    folder = (set(run.glob("validation_*")) - before).pop()
    _summary(json.loads((folder / "results.json").read_text()), training, checkpoint, folder)
    print(f"Whole demo:        {(time.monotonic() - started) / 60:.1f} minutes")
    return 0


def _runs() -> set[Path]:
    return {path.parent for path in PROJECT.glob("*/results.json")}


def _step(title: str, script: str, *arguments: str) -> None:
    print(f"\n=== {title}: python {script} {' '.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, script, *arguments], cwd=ROOT)
    if done.returncode:
        sys.exit(f"{title} ended with exit code {done.returncode}; what went wrong stands above")


def _summary(validation: dict, training: dict, checkpoint: Path, folder: Path) -> None:
    print("\n=== Summary: validation on scenes that were not trained on")
    metrics, classes = validation["metrics"], validation["classes"]
    total = {name: sum(row[name] for row in classes) for name in FIGURES} | {"name": "all classes"}
    print(figures_table("", [total | {name: metrics[name] for name in ("AP", "AP_50")}, *classes]).format())
    print(f"Training:          {training['steps']} steps, {training['seconds_per_step']:.2f} s per step")
    print(f"Checkpoint:        {checkpoint}")
    print(f"Confusion matrix:  {next(iter(sorted((folder / 'confusion_matrix').glob('*.png'))), 'none')}")
    print(f"Picture:           {next(iter(sorted((folder / 'pictures').rglob('*.png'))), 'none')}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nstopped: `make demo` keeps the recordings and begins to train anew")
