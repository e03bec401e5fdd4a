"""Fine-tuning with parts of the network kept as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from config.errors import UserError
from config.freezing import frozen_modules
from modules.run.checkpoint_file import read_checkpoint
from tests.runs import Start, run_folder


def last(folder: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = (folder / "checkpoints").glob("last_*")
    return path, read_checkpoint(path)


def test_parts_are_the_modules_of_their_names() -> None:
    stages = ["backbone.stages.0", "backbone.stages.1", "backbone.stages.2", "backbone.stages.3"]
    assert frozen_modules(["backbone"]) == set(stages)
    assert frozen_modules(["backbone.stages.1-2", "head"]) == {*stages[:2], "head"}
    assert frozen_modules(["backbone.stages.4"]) == {stages[3]}


def test_frozen_parts_stay_as_they_are_and_resume_keeps_to_them(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("validation.val_check_interval=2", "training.lr_scheduler.total_steps=20")
    assert start("training.max_steps=1", *options, project="first") == 0
    path, before = last(run_folder(tmp_path, "first"))
    freeze = "training.freeze=[backbone.stages.1-2,fpn]"
    assert start("training.max_steps=3", *options, freeze, f"weights={path}") == 0
    assert "Frozen: backbone.stages.1-2, fpn; " in capsys.readouterr().out
    folder = run_folder(tmp_path)
    path, after = last(folder)
    frozen = ("detector.backbone.stages.0.", "detector.backbone.stages.1.", "detector.fpn.")
    for name, value in before["state_dict"].items():  # batch norms' statistics as well
        kept = torch.equal(value, after["state_dict"][name])
        assert kept if name.startswith(frozen) else True, name
    changed = [n for n, v in before["state_dict"].items() if not torch.equal(v, after["state_dict"][n])]
    assert {name.split(".")[1] for name in changed} == {"backbone", "head"}
    trained = sum(n.startswith(frozen) for n in before["state_dict"])
    assert len(after["optimizer_states"][0]["state"]) < len(before["state_dict"]) - trained + 1

    with pytest.raises(UserError, match=r"trained with training.freeze=\[backbone.stages.1-2,fpn\].*weights="):
        start("training.max_steps=4", *options, f"resume={path}")
    assert start("training.max_steps=4", *options, "training.freeze=[fpn,backbone.stages.1-2]", f"resume={path}") == 0
