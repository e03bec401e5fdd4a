"""Behaviour of modules/evaluation/confusion.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modules.evaluation.confusion import ConfusionMatrix, confusion_matrix
from modules.evaluation.labelled_frames import Boxes, Predictions

CLASSES = ("car", "bus")


def confusion(truth: list[tuple], found: list[tuple], threshold: float = 0.25) -> ConfusionMatrix:
    """Rows are (frame, class, left, width), those found with a score behind; all boxes are 10 high."""
    gt, dt = np.array(truth, np.float32).reshape(-1, 4), np.array(found, np.float32).reshape(-1, 5)

    def columns(rows: np.ndarray) -> list[np.ndarray]:
        xywh = np.column_stack([rows[:, 2], np.zeros(len(rows)), rows[:, 3], np.full(len(rows), 10)])
        return [rows[:, 0].astype(np.int32), rows[:, 1].astype(np.int32), xywh.astype(np.float32)]

    predictions = Predictions(*columns(dt), dt[:, 4], np.ones_like(dt[:, 4]))
    return confusion_matrix(Boxes(*columns(gt)), predictions, predictions.score("product"), CLASSES, threshold)


def test_hits_mistakes_missed_and_false() -> None:
    truth = [(0, 0, 0, 10), (0, 1, 50, 10), (1, 0, 0, 10)]
    found = [(0, 0, 0, 10, 0.9), (0, 0, 50, 10, 0.8), (1, 1, 80, 10, 0.7), (1, 0, 0, 10, 0.2)]
    matrix = confusion(truth, found)
    assert matrix.labels == ("car", "bus", "background")
    assert matrix.counts.tolist() == [[1, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert (matrix.boxes(0), matrix.missed(0), matrix.false(0)) == (2, 1, 1)
    assert (matrix.boxes(1), matrix.missed(1), matrix.false(1)) == (1, 1, 1)
    assert matrix.row_normalised.tolist() == [[0.5, 0, 0.5], [1, 0, 0], [0, 1, 0]]


def test_best_score_takes_the_box_even_of_another_class() -> None:
    matrix = confusion([(0, 0, 0, 10)], [(0, 0, 0, 10, 0.5), (0, 1, 0, 10, 0.9)])
    assert matrix.counts.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_largest_iou_is_taken() -> None:
    """The prediction overlaps both boxes with IoU of at least 0.5, the second one entirely."""
    matrix = confusion([(0, 0, 0, 12), (0, 1, 2, 12)], [(0, 1, 2, 12, 0.9)])
    assert matrix.counts.tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_half_of_the_area_is_enough_and_less_is_not() -> None:
    assert confusion([(0, 0, 0, 10)], [(0, 0, 0, 5, 0.9)]).counts[0, 0] == 1
    assert confusion([(0, 0, 0, 10)], [(0, 0, 0, 4.9, 0.9)]).counts.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_score_at_the_threshold_counts() -> None:
    assert confusion([(0, 0, 0, 10)], [(0, 0, 0, 10, 0.25)]).counts[0, 0] == 1


def test_empty_and_unknown_classes() -> None:
    assert confusion([], []).counts.sum() == 0
    assert confusion([(0, 7, 0, 10)], [(0, 7, 0, 10, 0.9)]).counts.sum() == 0
    assert confusion([], []).row_normalised.sum() == 0


def test_csv_has_labels_on_both_sides(tmp_path: Path) -> None:
    matrix = confusion([(0, 0, 0, 10)], [(0, 1, 0, 10, 0.9)])
    matrix.write_csv(tmp_path / "counts.csv")
    lines = (tmp_path / "counts.csv").read_text().splitlines()
    assert lines[0].endswith("car,bus,background")
    assert lines[1] == "car,0,1,0"
    matrix.write_csv(tmp_path / "shares.csv", normalised=True)
    assert (tmp_path / "shares.csv").read_text().splitlines()[1] == "car,0.0,1.0,0.0"
