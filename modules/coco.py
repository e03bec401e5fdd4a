"""COCO's average precision and recall on plain arrays, with the numbers of pycocotools.

Definitions: Lin et al., "Microsoft COCO", and the behaviour of `pycocotools.cocoeval` for boxes without crowds: ten IoU
thresholds from .5 to .95, 101 recall points, at most 100 predictions per frame and class, the four areas of `AREAS`.
Arrays instead of one dict per box keep a million predictions in tens of megabytes, and matching is kept apart from
accumulation, so that one matching serves any subset of frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int8
from numba import njit
from numpy import ndarray

AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
MAX_DETECTIONS = (1, 10, 100)
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
NO_GROUND_TRUTH = -1.0  # COCO's value of a figure that has no ground truth to be measured on


@dataclass(frozen=True)
class Matches:
    """Which predictions hit, per area and IoU threshold; rows ordered by frame, class and falling score."""

    frame: Int[ndarray, " d"]
    class_id: Int[ndarray, " d"]
    score: Float[ndarray, " d"]
    rank: Int[ndarray, " d"]  # within the frame and class, 0 for the best score
    outcome: Int8[ndarray, "area iou d"]  # 1 hit, 0 false, -1 outside the area and not counted
    truth_frame: Int[ndarray, " n"]
    truth_class: Int[ndarray, " n"]
    truth_counts: Bool[ndarray, "area n"]  # the box lies in the area
    num_classes: int

    def of_frames(self, chosen: Bool[ndarray, " frames"]) -> Matches:
        """Those of the chosen frames only."""
        rows, truth = chosen[self.frame], chosen[self.truth_frame]
        return Matches(
            self.frame[rows],
            self.class_id[rows],
            self.score[rows],
            self.rank[rows],
            self.outcome[:, :, rows],
            self.truth_frame[truth],
            self.truth_class[truth],
            self.truth_counts[:, truth],
            self.num_classes,
        )


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


def match(
    truth_frame: Int[ndarray, " n"],
    truth_class: Int[ndarray, " n"],
    truth_xywh: Float[ndarray, "n 4"],
    frame: Int[ndarray, " d"],
    class_id: Int[ndarray, " d"],
    xywh: Float[ndarray, "d 4"],
    score: Float[ndarray, " d"],
    num_classes: int,
    use_classes: bool = True,
) -> Matches:
    """Match predictions to the ground truth of their frame and class, the best score first.

    Boxes are (left, top, width, height); frames are indices from 0. Boxes of a class outside 0..num_classes-1 take no
    part. `use_classes=False` lets any class match any other and keeps 100 predictions per frame over all classes.
    """
    known, truth_known = _known(class_id, num_classes), _known(truth_class, num_classes)
    frame, class_id, xywh, score = frame[known], class_id[known], xywh[known], score[known].astype(np.float64)
    truth_frame, truth_class, truth_xywh = truth_frame[truth_known], truth_class[truth_known], truth_xywh[truth_known]

    # pycocotools lists the boxes of a frame class by class even when it ignores classes: that settles equal scores.
    truth_order = np.lexsort((truth_class, truth_frame))
    order = np.lexsort((class_id, frame))
    if not use_classes:
        order = order[np.lexsort((-score[order], frame[order]))]
        class_id, truth_class, num_classes = np.zeros_like(class_id), np.zeros_like(truth_class), 1
    else:
        order = order[np.lexsort((-score[order], class_id[order], frame[order]))]
    truth_frame, truth_class = truth_frame[truth_order], truth_class[truth_order]
    truth_xywh = truth_xywh[truth_order].astype(np.float64)

    group = frame[order].astype(np.int64) * num_classes + class_id[order]
    rank = np.arange(len(order)) - np.searchsorted(group, group)
    kept = rank < MAX_DETECTIONS[-1]
    order, group, rank = order[kept], group[kept], rank[kept]
    truth_group = truth_frame.astype(np.int64) * num_classes + truth_class

    truth_area = truth_xywh[:, 2] * truth_xywh[:, 3]
    limits = np.array(list(AREAS.values()))
    truth_counts = (truth_area >= limits[:, :1]) & (truth_area <= limits[:, 1:])
    boxes = xywh[order].astype(np.float64)
    area = boxes[:, 2] * boxes[:, 3]
    counts = (area >= limits[:, :1]) & (area <= limits[:, 1:])
    groups = np.unique(group)
    outcome = _match_groups(
        truth_xywh,
        boxes,
        truth_counts,
        counts,
        np.searchsorted(truth_group, groups),
        np.searchsorted(truth_group, groups, side="right"),
        np.searchsorted(group, groups),
        np.searchsorted(group, groups, side="right"),
        IOU_THRESHOLDS,
    )
    return Matches(
        frame[order],
        class_id[order],
        score[order],
        rank,
        outcome,
        truth_frame,
        truth_class,
        truth_counts,
        num_classes,
    )


def _known(class_id: Int[ndarray, " n"], num_classes: int) -> Bool[ndarray, " n"]:
    return (class_id >= 0) & (class_id < num_classes)


@njit(cache=True, nogil=True)
def _match_groups(
    truth_xywh, xywh, truth_counts, counts, truth_start, truth_stop, start, stop, iou_thresholds
):  # pragma: no cover (compiled)
    """Per frame and class: each prediction, best first, takes the free box of largest IoU; boxes of the area first."""
    num_areas, num_thresholds = len(counts), len(iou_thresholds)
    outcome = np.empty((num_areas, num_thresholds, len(xywh)), dtype=np.int8)
    for group in range(len(start)):
        first_truth, first = truth_start[group], start[group]
        num_truth, num_boxes = truth_stop[group] - first_truth, stop[group] - first
        ious = np.empty((num_boxes, num_truth))
        for row in range(num_boxes):
            for column in range(num_truth):
                ious[row, column] = box_iou(xywh[first + row], truth_xywh[first_truth + column])
        for area in range(num_areas):
            for level in range(num_thresholds):
                taken = np.zeros(num_truth, dtype=np.bool_)
                for row in range(num_boxes):
                    best, best_iou, best_counts = -1, min(iou_thresholds[level], 1 - 1e-10), False
                    for wanted in (True, False):
                        if best_counts:
                            break
                        for column in range(num_truth):
                            if truth_counts[area, first_truth + column] != wanted or taken[column]:
                                continue
                            if ious[row, column] >= best_iou:
                                best, best_iou, best_counts = column, ious[row, column], wanted
                    if best >= 0:
                        taken[best] = True
                        outcome[area, level, first + row] = 1 if best_counts else -1
                    else:
                        outcome[area, level, first + row] = 0 if counts[area, first + row] else -1
    return outcome


@njit(cache=True, nogil=True)
def box_iou(a, b):  # pragma: no cover (compiled)
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    return intersection / (a[2] * a[3] + b[2] * b[3] - intersection)


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
