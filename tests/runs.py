"""What tests of whole runs share."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Start = Callable[..., int]  # start(*overrides, project="project") -> exit code

NETWORK = (
    "model.backbone.embed_dim=8",
    "model.backbone.stage.attention.dim_head=8",
    "model.backbone.partition_split_32=1",
    "model.fpn.depth=0.33",
)


def checkpoint_content(**changes: Any) -> dict[str, Any]:
    """The least that a checkpoint of a run holds."""
    import torch  # here: most tests of configs do without

    from modules.run.checkpoint_content import FIT_LOOP

    needed: dict[str, Any] = {
        "epoch": 0,
        "global_step": 3,
        "config": {"reproduce": {"seed_everything": 1}, "training": {}},
    }
    needed["callbacks"] = {"CheckpointWriter": {"best": [], "validation_pending": False, "epoch": 0}}
    return {**needed, "state_dict": {"weight": torch.arange(4.0)}, "loops": {"fit_loop": FIT_LOOP}, **changes}


def make_run(project: Path, run_id: str, checkpoint_age_s: int | None) -> Path:
    """A run's folder with what it is known by, and a checkpoint."""
    run = project / run_id
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    if checkpoint_age_s is not None:
        checkpoint = run / "checkpoints" / "last_epoch=000-step=1.ckpt"
        checkpoint.touch()
        os.utime(checkpoint, (1e9 - checkpoint_age_s,) * 2)
    return run


def run_folder(tmp_path: Path, project: str = "project") -> Path:
    (folder,) = (tmp_path / "runs" / project).iterdir()
    return folder


def losses(folder: Path) -> dict[int, tuple[str, str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert len(rows) == len({row["step"] for row in rows})
    return {int(row["step"]): (row["train/loss"], row["train/grad_norm"], row["lr"]) for row in rows}


def tell_environment() -> Callable[[], float]:
    """A measure for a process of its own, which then needs no torch."""
    return lambda: float(os.environ["STREAMRVT_TEST"])
