"""What the demo says at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.demo import _summary


def test_summary_names_figures_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("confusion_matrix/counts.png", "pictures/scene.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    classes = [
        {"name": "car", "AP": 0.25, "AP_50": 0.5, "boxes": 4, "missed": 1, "false": 2},
        {"name": "tram", "AP": -1.0, "AP_50": -1.0, "boxes": 0, "missed": 0, "false": 1},
    ]
    validation = {"metrics": {"AP": 0.25, "AP_50": 0.5}, "classes": classes}
    _summary(validation, {"steps": 350, "seconds_per_step": 1.5}, tmp_path / "last.ckpt", tmp_path)
    said = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split()[-5:] for line in said.splitlines()}
    assert rows["all classes"] == ["0.2500", "0.5000", "4", "1", "3"]
    assert rows["car"] == ["0.2500", "0.5000", "4", "1", "2"]
    assert rows["tram"] == ["-", "-", "0", "0", "1"]
    assert "350 steps, 1.50 s per step" in said
    for name in ("last.ckpt", "confusion_matrix/counts.png", "pictures/scene.png"):
        assert str(tmp_path / name) in said
