"""Runs of the real train.py on a tiny data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.programs import Program
from tests.conftest import FRAME_HW
from tests.runs import NETWORK

Train = Callable[..., Program]


def arguments(data_set: Path, run_root: Path) -> list[str]:
    """A command for `data_set` that takes milliseconds per step."""
    return [
        "dataset=gen4",
        "model=maxvit_yolox/default",
        *NETWORK,
        f"dataset.path={data_set}",
        f"dataset.resolution_hw=[{FRAME_HW[0] * 2},{FRAME_HW[1] * 2}]",
        "dataset.sequence_length=3",
        "dataset.train.sampling=mixed",
        "dataset.eval.box_filter={min_diagonal: 0, min_side: 0, skip_first_ms: 0}",
        "batch_size.train=4",
        "batch_size.eval=2",
        "hardware.num_workers.train=0",
        "hardware.num_workers.eval=0",
        "hardware.gpus=0",
        "training.max_steps=100000",
        "validation.limit_val_batches=0",
        "logging.train.log_every_n_steps=1",
        "logging.validation.high_dim.enable=false",
        "logger=csv",
        "reproduce.seed_everything=1",
        "wandb.project_name=project",
        f"run_root={run_root}",
    ]


@pytest.fixture
def train(data_set: Path, tmp_path: Path) -> Iterator[Train]:
    """Start train.py with overrides; `prepare` and `environment` as in `Program`. Runs lie under tmp_path / "runs"."""

    programs = []

    def start(*overrides: str, **options: object) -> Program:
        typed = {text.partition("=")[0] for text in overrides}
        kept = [text for text in arguments(data_set, tmp_path / "runs") if text.partition("=")[0] not in typed]
        programs.append(Program([*kept, *overrides], tmp_path / "log.txt", **options))
        return programs[-1]

    yield start
    for program in programs:
        program.end()
