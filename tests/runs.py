"""What tests of whole runs share."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

Start = Callable[..., int]  # start(*overrides, project="project") -> exit code

NETWORK = (
    "model.backbone.embed_dim=8",
    "model.backbone.stage.attention.dim_head=8",
    "model.backbone.partition_split_32=1",
    "model.fpn.depth=0.33",
)


def run_folder(tmp_path: Path, project: str = "project") -> Path:
    (folder,) = (tmp_path / "runs" / project).iterdir()
    return folder


def losses(folder: Path) -> dict[int, tuple[str, str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert len(rows) == len({row["step"] for row in rows})
    return {int(row["step"]): (row["train/loss"], row["train/grad_norm"], row["lr"]) for row in rows}
