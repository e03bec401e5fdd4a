"""How far an exported file may be from PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from config.errors import UserError
from modules.deployment.comparison import Difference


@pytest.mark.parametrize(
    ("side", "column", "gap", "is_rounding"),
    [
        (50, 2, 0.009, True),
        (50, 2, 0.02, False),
        (50, 0, 0.02, False),
        (12_800, 2, 0.9, True),  # a hundred times the frame
        (12_800, 2, 1.1, False),
        (50, 4, 0.9e-4, True),
        (12_800, 5, 1.1e-4, False),
        (50, 5, np.nan, False),
        (50, 1, np.nan, False),
    ],
)
def test_what_counts_as_rounding(side: float, column: int, gap: float, is_rounding: bool) -> None:
    ours = np.array([[[60, 60, side, 20, 0.5, 0.5], [60, 60, 20, 20, 0.5, 0.5]]], np.float32)
    theirs = ours.astype(np.float64)
    theirs[0, 0, column] += gap
    difference = Difference()
    difference.add_anchors(ours, theirs, (64, 128))  # type: ignore[bad-argument-type]
    difference.add_anchors(ours, ours, (64, 128))
    assert difference.num_boxes == 4
    if is_rounding:
        difference.check(Path("a.ckpt"))
    else:
        with pytest.raises(UserError, match="other boxes than PyTorch"):
            difference.check(Path("a.ckpt"))
