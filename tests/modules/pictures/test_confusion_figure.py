"""Behaviour of modules/pictures/confusion_figure.py; that it can be read is for eyes."""

from __future__ import annotations

import numpy as np
import pytest

from modules.evaluation.confusion import ConfusionMatrix
from modules.pictures.confusion_figure import draw_confusion_matrix


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("num_classes", [1, 2, 20])
def test_size_grows_with_the_number_of_classes(num_classes: int, normalised: bool) -> None:
    labels = (*(f"class {index}" for index in range(num_classes)), "background")
    counts = np.arange((num_classes + 1) ** 2).reshape(num_classes + 1, -1) * 1000
    picture = draw_confusion_matrix(ConfusionMatrix(counts, labels, 0.25), normalised)
    assert picture.mode == "RGB"
    assert picture.width >= 90 * (num_classes + 1)


def test_empty_matrix_can_be_drawn() -> None:
    matrix = ConfusionMatrix(np.zeros((2, 2), np.int64), ("car", "background"), 0.25)
    assert np.asarray(draw_confusion_matrix(matrix)).min() < 100  # the labels
