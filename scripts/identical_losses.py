"""Does a refactor keep the numbers? Trains 20 steps with another revision and with this working tree, and compares.

python scripts/identical_losses.py main                       # before committing: against main
python scripts/identical_losses.py HEAD~5 dataset.train.sampling=mixed training.precision=bf16-mixed

Both train on the same small toy set, with the same packages, in one thread. Every logged loss, gradient norm, learning
rate and AP must be equal to the last digit; the exit code is 1 if one is not.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCENES = ["--train", "4", "--val", "2", "--test", "1", "--seconds", "2", "--size", "180x320", "--seed", "7"]
COMPARED = ("train/", "val/", "lr")  # prefixes of columns; times and speeds differ from run to run
RUN = [
    "dataset=toy",
    "dataset.resolution_hw=[180,320]",
    "+experiment/toy=demo",
    "training.precision=32",
    "training.max_steps=20",
    "validation.val_check_interval=10",
    "batch_size.train=2",
    "hardware.num_workers.train=0",
    "hardware.num_workers.eval=0",
    "logging.train.log_every_n_steps=1",
    "reproduce.seed_everything=1",
    "hardware.gpus=0",
    "logger=csv",
    "wandb.project_name=identical",
]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="what to compare with: a commit, tag or branch of git")
    parser.add_argument("overrides", nargs="*", help="of both trainings, as train.py takes them")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="identical_losses_") as temporary:
        folder = Path(temporary)
        data = _make_data(folder)
        with _checkout(options.revision, folder / "base") as base:
            before = _train(base, data, folder / "before", options.overrides)
        after = _train(ROOT, data, folder / "after", options.overrides)
    differences = list(_differences(before, after))
    for line in differences[:10]:
        print(line)
    if differences:
        print(f"{len(differences)} numbers differ from {options.revision}")
        return 1
    print(f"identical to {options.revision}: {sum(map(len, after.values()))} numbers of {len(after)} rows")
    return 0


def _make_data(folder: Path) -> Path:
    raw, data = folder / "raw", folder / "data"
    _python(ROOT, "scripts/make_toy_dataset.py", str(raw), *SCENES)
    _python(ROOT, "scripts/preprocess.py", str(raw), str(data), *RUN[:2])
    return data


@contextmanager
def _checkout(revision: str, folder: Path) -> Generator[Path]:
    subprocess.run(
        ["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(folder), revision], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(folder)], check=True)


def _train(project: Path, data: Path, runs: Path, overrides: Sequence[str]) -> dict[str, dict[str, str]]:
    """The compared columns of metrics.csv by step and kind of row."""
    _python(project, "train.py", *RUN, f"dataset.path={data}", f"run_root={runs}", *overrides)
    (metrics,) = runs.glob("*/*/metrics.csv")
    rows: dict[str, dict[str, str]] = {}
    with metrics.open(newline="") as file:
        for row in csv.DictReader(file):
            values = {name: value for name, value in row.items() if name.startswith(COMPARED) and value}
            if values:
                rows.setdefault(f"step {row['step']}", {}).update(values)
    return rows


def _differences(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> Iterator[str]:
    for step in sorted(before.keys() | after.keys(), key=lambda text: int(text.split()[1])):
        old, new = before.get(step, {}), after.get(step, {})
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                yield f"{step} {name}: {old.get(name, 'missing')} before, {new.get(name, 'missing')} now"


def _python(project: Path, *command: str) -> None:
    """Run a script of a project folder with that folder's code, whatever is installed."""
    environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{project}: python {' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
