from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from config.errors import UserError
from tests.conftest import write_sequence
from tests.runs import Start

WEIGHTED = "model.loss.class_weight.kind=inverse_frequency"


def rewrite_labels(data_set: Path, classes: list[int]) -> None:
    """One training sequence, whose labelled frames 1, 3, 5, ... have one box each, of these classes."""
    shutil.rmtree(data_set / "train")
    labels = {2 * i + 1: [(number, 4.0, 2.0, 10.0, 8.0)] for i, number in enumerate(classes)}
    write_sequence(data_set / "train" / "sequence", 2 * len(classes), labels)


def test_training_labels_are_counted_told_and_weighed(
    start: Start, data_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite_labels(data_set, [1] * 6 + [0] * 2)
    options = ("training.max_steps=1", "validation.limit_val_batches=0", "dataset.train.sampling=stream")
    assert start(*options, WEIGHTED) == 0
    printed = capsys.readouterr().out
    assert "pedestrian 2 (2), car 0.667 (6)" in printed
    assert "No weight, for want of any box: bicycle, bus, motorbike, truck, tram, wheelchair" in printed


def test_a_set_without_boxes_has_nothing_to_count(start: Start, data_set: Path) -> None:
    rewrite_labels(data_set, [1])
    sequence = data_set / "train" / "sequence"
    shutil.rmtree(sequence)
    write_sequence(sequence, 4, {1: [], 3: []})
    with pytest.raises(UserError, match="no boxes to count"):
        start(WEIGHTED)
