"""Confusion matrix of a detector: which class a box of each class was taken for, missed and invented boxes included."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from data.boxes.overlap import ragged_ious
from data.compiled import compiled
from modules.evaluation.labelled_frames import Boxes, Predictions

MATCH_IOU = 0.5
BACKGROUND = "background"


@dataclass(frozen=True)
class ConfusionMatrix:
    """Rows: ground truth, columns: predictions; the last of either is the background.

    A cell of the background column counts missed boxes, one of the background row false predictions.
    """

    counts: Int64[ndarray, "truth prediction"]
    labels: tuple[str, ...]
    threshold: float  # least score of the predictions counted

    @property
    def row_normalised(self) -> Float64[ndarray, "truth prediction"]:
        """Shares of each row; zeros where a row is empty."""
        return self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)

    def boxes(self, class_id: int) -> int:
        return int(self.counts[class_id].sum())

    def missed(self, class_id: int) -> int:
        """Boxes that no prediction of their class hit."""
        return self.boxes(class_id) - int(self.counts[class_id, class_id])

    def false(self, class_id: int) -> int:
        """Predictions of the class that hit no box of it."""
        return int(self.counts[:, class_id].sum() - self.counts[class_id, class_id])

    def write_csv(self, path: Path, normalised: bool = False) -> None:
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["ground truth \\ prediction", *self.labels])
            rows = np.round(self.row_normalised, 4).tolist() if normalised else self.counts.tolist()
            writer.writerows([label, *row] for label, row in zip(self.labels, rows, strict=True))


def confusion_matrix(
    truth: Boxes, predictions: Predictions, score: Float64[ndarray, " n"], classes: tuple[str, ...], threshold: float
) -> ConfusionMatrix:
    """Match across classes at IoU 0.5: the best score first takes the free box of its frame with the largest IoU.

    Boxes and predictions of classes beyond the list take no part.
    """
    num_classes = len(classes)
    truth = truth.rows((truth.class_id >= 0) & (truth.class_id < num_classes))
    chosen = (score >= threshold) & (predictions.class_id >= 0) & (predictions.class_id < num_classes)
    predictions, score = predictions.rows(chosen), score[chosen]
    predictions = predictions.rows(np.lexsort((-score, predictions.frame)))
    start = np.searchsorted(truth.frame, predictions.frame)
    stop = np.searchsorted(truth.frame, predictions.frame, side="right")
    ious, offsets = ragged_ious(truth.xywh.astype(np.float64), start, stop, predictions.xywh.astype(np.float64))
    hit = _match_any_class(ious, offsets, start, len(truth), MATCH_IOU)
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    true_class = np.append(truth.class_id, num_classes)  # index -1, no hit, is the background
    np.add.at(counts, (true_class[hit], predictions.class_id), 1)
    missed = np.setdiff1d(np.arange(len(truth)), hit)
    np.add.at(counts, (truth.class_id[missed], np.full(len(missed), num_classes)), 1)
    return ConfusionMatrix(counts, (*classes, BACKGROUND), threshold)


@compiled
def _match_any_class(ious, offsets, truth_start, num_truth, least_iou):  # pragma: no cover (compiled)
    taken = np.zeros(num_truth, dtype=np.bool_)
    hit = np.full(len(truth_start), -1, dtype=np.int64)
    for row in range(len(truth_start)):
        best_iou = 0.0
        for pair in range(offsets[row], offsets[row + 1]):
            column = truth_start[row] + pair - offsets[row]
            if not taken[column] and ious[pair] >= least_iou and ious[pair] > best_iou:
                hit[row], best_iou = column, ious[pair]
        if hit[row] >= 0:
            taken[hit[row]] = True
    return hit
