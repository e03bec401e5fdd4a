"""Formats of boxes (data/boxes/__init__.py), for arrays and tensors alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data import boxes

FORMATS = {"xywh": [10, 20, 4, 6], "xyxy": [10, 20, 14, 26], "cxcywh": [12, 23, 4, 6]}  # one box in each


@pytest.mark.parametrize("make", [np.array, torch.tensor])
@pytest.mark.parametrize(
    ("source", "target"),
    [("cxcywh", "xywh"), ("cxcywh", "xyxy"), ("xyxy", "xywh"), ("xywh", "xyxy"), ("xywh", "cxcywh")],
)
def test_one_box_in_each_format(source: str, target: str, make: type) -> None:
    many = make([[FORMATS[source]] * 2] * 3)  # any number of axes before the last
    converted = getattr(boxes, f"{target}_from_{source}")(many)
    assert converted.shape == (3, 2, 4)
    assert converted[1, 1].tolist() == FORMATS[target]


def test_scores() -> None:
    objectness, confidence = np.array([0.5, 1.0]), np.array([0.5, 0.25])
    assert boxes.score(objectness, confidence).tolist() == [0.25, 0.25]
    assert boxes.score(objectness, confidence, "class").tolist() == [0.5, 0.25]


def test_records_are_prophesees() -> None:
    """40 bytes with gaps, as its tools write them; predictions have the same fields first."""
    assert boxes.BOX_DTYPE.names == ("t", "x", "y", "w", "h", "class_id", "track_id", "class_confidence")
    assert boxes.BOX_DTYPE.itemsize == 40
    assert boxes.PREDICTION_DTYPE.names[:8] == boxes.BOX_DTYPE.names
