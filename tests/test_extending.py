"""docs/extending.md does what it says: its files and commands, in a user's own folder."""

from __future__ import annotations

import csv
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from scripts.programs import Program
from tests.conftest import write_sequence
from tests.runs import run_folder

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
TINY = (
    "dataset.resolution_hw=[16,24]",
    "dataset.downsample_by_factor_2=true",
    "model.backbone.embed_dim=8",
    "model.backbone.stage.attention.dim_head=8",
    "model.backbone.partition_split_32=1",
    "model.fpn.depth=0.33",
    "hardware={gpus: 0, num_workers: {train: 0, eval: 0}}",
    "batch_size={train: 2, eval: 2}",
    "validation.val_check_interval=null",
    "validation.check_val_every_n_epoch=1",
    "logging.train.log_every_n_steps=1",
    "logger=csv",
    "wandb.project_name=project",
)


def python_path() -> None:
    """What Python does with PYTHONPATH when it starts; a forked program has started before."""
    sys.path[1:1] = os.environ.get("PYTHONPATH", "").split(os.pathsep)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the page's files, and a small data set."""
    for block in BLOCK.finditer(PAGE):
        name, _, text = block["text"].partition("\n")
        if name.startswith("# ~/"):
            path = tmp_path / name.removeprefix("# ~/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for split in ("train", "val"):
        for number in range(2):
            labels = {frame: [(number, 4.0, 2.0, 10.0, 8.0)] for frame in range(1, 9, 2)}
            write_sequence(tmp_path / "crossing" / split / f"sequence_{number}", 9, labels)
    return tmp_path


def commands() -> list[tuple[dict[str, str], list[str]]]:
    """The page's commands: variables that they set, and what follows `python`."""
    found = []
    for block in BLOCK.finditer(PAGE):
        if block["language"] == "bash":
            words = shlex.split(block["text"].replace("\\\n", " "))
            begin = words.index("python")
            found.append((dict(word.split("=", 1) for word in words[:begin]), words[begin + 1 :]))
    return found


def run(home: Path, variables: dict[str, str], words: list[str], *more: str, exit_code: int = 0) -> str:
    """Run a command of the page as a shell would; gives its output."""

    def expanded(word: str) -> str:
        return word.replace("~", str(home), 1) if word.startswith("~/") else word

    environment = {"HOME": str(home), **{name: expanded(value) for name, value in variables.items()}}
    arguments = [*map(expanded, words[1:]), *more]
    program = Program(arguments, home / "log.txt", script=words[0], prepare=python_path, environment=environment)
    try:
        assert program.exit_code() == exit_code, program.output()
        return program.output()
    finally:
        program.end()


def test_the_page_trains_goes_on_and_validates_without_touching_the_project(home: Path) -> None:
    (variables, train), (_, resume) = commands()
    runs = f"run_root={home / 'runs'}"
    output = run(home, variables, train, *TINY, runs, "training.max_steps=2")
    assert f"model.backbone.stage.cell: LeakyCell of {home}/mine/parts/leaky.py" in output
    assert f"model.loss.name: SmoothLoss of {home}/mine/parts/smooth.py" in output
    folder = run_folder(home)
    with (folder / "metrics.csv").open(newline="") as file:
        steps = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert all(float(row["train/box_loss"]) >= 0 for row in steps)
    assert "train/iou_loss" not in steps[0]
    (last,) = (folder / "checkpoints").glob("last_*")
    weights = torch.load(last, weights_only=True)["state_dict"]
    assert any(".own.linear.weight" in name for name in weights)
    assert not any("lstm" in name for name in weights)
    assert f"--config-dir={home}/mine" in (folder / "command.txt").read_text()

    printed = next(line for line in output.splitlines() if line.startswith("Validate it:"))
    validate = shlex.split(printed)[3:]
    assert validate[0] == "validation.py"
    assert "Results:" in run(home, variables, validate, "logger=csv", "hardware.num_workers.eval=0")
    refused = run(home, {}, validate, exit_code=2)
    assert "model.backbone.stage.cell=leaky:LeakyCell: there is no module leaky on Python's path" in refused
    assert "Traceback" not in refused

    resume = [word.replace("4000", "3") for word in resume]
    run(home, variables, resume, runs)
    (last,) = (folder / "checkpoints").glob("last_*")
    assert "step=3" in last.name
