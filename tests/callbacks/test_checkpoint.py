"""What a checkpoint lists as the best files is only ever looked for in its own folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from callbacks.checkpoint import CheckpointWriter
from callbacks.signals import SignalHandling
from config.loading import load_train_config
from data.loader import LoaderWatch
from modules.run.checkpoint_file import AtomicCheckpointIO
from modules.stage import Stage


@pytest.mark.parametrize(
    "name", ["../victim.ckpt", "/etc/passwd", "victim.ckpt", "", "epoch=000-step=1-val_AP=0.10.ckpt\n"]
)
def test_a_name_that_is_none_of_ours_is_left_alone(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    own = "epoch=012-step=1000-val_AP=0.25.ckpt"
    for path in (tmp_path / "victim.ckpt", folder / "victim.ckpt", folder / own):
        path.touch()
    config = load_train_config(["dataset=toy", "model=maxvit_yolox/plain_lstm"])
    writer = CheckpointWriter(folder, Stage(config), AtomicCheckpointIO(), SignalHandling(LoaderWatch()))
    best = [{"file": name, "AP": 0.1, "step": 1}, *2 * [{"file": own, "AP": 0.2, "step": 2}]]
    with pytest.warns(UserWarning, match="no name of ours, left alone"):
        writer.load_state_dict({"best": best, "validation_pending": False, "epoch": 0})
    assert [entry["file"] for entry in writer.best] == [own]
