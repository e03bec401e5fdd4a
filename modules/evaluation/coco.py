"""COCO's average precision and recall on plain arrays, with the numbers of pycocotools.

Definitions: Lin et al., "Microsoft COCO", and the behaviour of `pycocotools.cocoeval` for boxes without crowds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from modules.evaluation.matching import AREAS, IOU_THRESHOLDS, MAX_DETECTIONS, Matches

RECALL_POINTS = np.linspace(0.0, 1.0, 101)
NO_GROUND_TRUTH = -1.0  # COCO's value of a figure that has no ground truth to be measured on


@dataclass(frozen=True)
class Curves:
    """Precision at the recall points, and recall in the end; -1 where a class has no ground truth in the area."""

    precision: Float64[ndarray, "area iou recall class"]
    recall: Float64[ndarray, "area iou class"]  # with 100 predictions per frame and class
    recall_by_max: Float64[ndarray, "max iou class"]  # all areas, with 1, 10 and 100 predictions

    def summary(self, class_id: int | None = None) -> dict[str, float]:
        """COCO's twelve figures, over all classes that have ground truth or for one class."""
        columns = slice(None) if class_id is None else slice(class_id, class_id + 1)
        precision, recall = self.precision[..., columns], self.recall[..., columns]
        figures = {
            "AP": _mean(precision[0]),
            "AP_50": _mean(precision[0, 0]),
            "AP_75": _mean(precision[0, 5]),
            "AP_S": _mean(precision[1]),
            "AP_M": _mean(precision[2]),
            "AP_L": _mean(precision[3]),
        }
        for index, max_detections in enumerate(MAX_DETECTIONS):
            figures[f"AR_{max_detections}"] = _mean(self.recall_by_max[index][..., columns])
        return figures | {"AR_S": _mean(recall[1]), "AR_M": _mean(recall[2]), "AR_L": _mean(recall[3])}


def _mean(values: Float64[ndarray, "..."]) -> float:
    measured = values[values > NO_GROUND_TRUTH]
    return float(np.mean(measured)) if measured.size else NO_GROUND_TRUTH


def accumulate(matches: Matches) -> Curves:
    """Precision and recall of every class, area and IoU threshold over all frames of the matches."""
    num_areas, num_thresholds = len(AREAS), len(IOU_THRESHOLDS)
    precision = np.full((num_areas, num_thresholds, len(RECALL_POINTS), matches.num_classes), NO_GROUND_TRUTH)
    recall = np.full((num_areas, num_thresholds, matches.num_classes), NO_GROUND_TRUTH)
    recall_by_max = np.full((len(MAX_DETECTIONS), num_thresholds, matches.num_classes), NO_GROUND_TRUTH)
    for class_id in range(matches.num_classes):
        rows = np.flatnonzero(matches.class_id == class_id)
        rows = rows[np.argsort(-matches.score[rows], kind="stable")]
        num_truth = matches.truth_counts[:, matches.truth_class == class_id].sum(axis=1)
        for area in np.flatnonzero(num_truth):
            for level in range(num_thresholds):
                outcome = matches.outcome[area, level, rows]
                hits = np.cumsum(outcome == 1, dtype=np.float64)
                false = np.cumsum(outcome == 0, dtype=np.float64)
                precision[area, level, :, class_id] = precision_at_recall_points(hits, false, num_truth[area])
                recall[area, level, class_id] = hits[-1] / num_truth[area] if len(hits) else 0
        if num_truth[0]:
            for index, max_detections in enumerate(MAX_DETECTIONS):
                hits = (matches.outcome[0][:, rows[matches.rank[rows] < max_detections]] == 1).sum(axis=1)
                recall_by_max[index, :, class_id] = hits / num_truth[0]
    return Curves(precision, recall, recall_by_max)


def precision_at_recall_points(
    hits: Float64[ndarray, " d"], false: Float64[ndarray, " d"], num_truth: int
) -> Float64[ndarray, " recall"]:
    """Best precision at or beyond each of the 101 recalls; 0 beyond the recall that is reached."""
    best_precision = np.maximum.accumulate((hits / (false + hits + np.spacing(1)))[::-1])[::-1]
    index = np.searchsorted(hits / num_truth, RECALL_POINTS, side="left")
    return np.append(best_precision, 0.0)[index]
