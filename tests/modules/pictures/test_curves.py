from __future__ import annotations

from pathlib import Path

from modules.pictures.curves import draw_curves


def test_curves_are_drawn_as_soon_as_there_is_a_loss(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("step,val/AP\n10,0.1\n")
    assert draw_curves(metrics) is None
    metrics.write_text("step,train/loss,lr,val/AP,val/AP_50\n1,9.0,0.1,,\n2,nan,0.1,,\n3,5.0,0.2,,\n3,,,0.1,0.3\n")
    assert draw_curves(metrics).width > 1000
