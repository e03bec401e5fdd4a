"""COCO's matching of predictions to ground truth on plain arrays, with the outcome of pycocotools.

Ten IoU thresholds from .5 to .95, at most 100 predictions per frame and class, the four areas of `AREAS`. Arrays
instead of one dict per box keep a million predictions in tens of megabytes. Matching is kept apart from accumulation
(`modules.evaluation.coco`), so that one matching serves any subset of frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int8, Int64
from numpy import ndarray

from data.boxes import LARGE_FROM_PX2, SMALL_BELOW_PX2
from data.boxes.overlap import ragged_ious
from data.compiled import compiled

AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, SMALL_BELOW_PX2),
    "medium": (SMALL_BELOW_PX2, LARGE_FROM_PX2),
    "large": (LARGE_FROM_PX2, 1e10),
}
MAX_DETECTIONS = (1, 10, 100)
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)


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
    truth_xywh: Float64[ndarray, "n 4"]
    truth_counts: Bool[ndarray, "area n"]  # the box lies in the area
    truth_hit: Bool[ndarray, "iou n"]  # over all areas
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
            self.truth_xywh[truth],
            self.truth_counts[:, truth],
            self.truth_hit[:, truth],
            self.num_classes,
        )


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
    area_scale: float = 1.0,
) -> Matches:
    """Match predictions to the ground truth of their frame and class, the best score first.

    Boxes are (left, top, width, height); frames are indices from 0. Boxes of a class outside 0..num_classes-1 take no
    part. `use_classes=False` lets any class match any other and keeps 100 predictions per frame over all classes.
    `area_scale` multiplies boxes' areas before their size is looked at: pixels of the sensor per pixel of the frame.
    """
    truth = _Boxes(truth_frame, truth_class, truth_xywh.astype(np.float64))
    truth = truth.take(_by_frame_and_class(truth, num_classes))
    found = _Boxes(frame, class_id, xywh.astype(np.float64))
    order = _by_frame_and_class(found, num_classes)
    found, score = found.take(order), score[order].astype(np.float64)
    if not use_classes:
        found, truth, num_classes = found.of_one_class(), truth.of_one_class(), 1

    best_first = np.lexsort((-score, found.group(num_classes)))
    group = found.group(num_classes)[best_first]
    rank = np.arange(len(group)) - np.searchsorted(group, group)
    kept = rank < MAX_DETECTIONS[-1]
    found, score, group, rank = found.take(best_first[kept]), score[best_first[kept]], group[kept], rank[kept]

    truth_group, truth_counts = truth.group(num_classes), truth.counts_in(area_scale)
    truth_start, truth_stop = np.searchsorted(truth_group, group), np.searchsorted(truth_group, group, side="right")
    ious, offsets = ragged_ious(truth.xywh, truth_start, truth_stop, found.xywh)
    _, start, length = np.unique(group, return_index=True, return_counts=True)
    stop = start + length
    outcome, truth_hit = _match_groups(
        ious,
        offsets,
        truth_counts,
        found.counts_in(area_scale),
        start,
        stop,
        truth_start[start],
        truth_stop[start],
        IOU_THRESHOLDS,
    )
    return Matches(
        found.frame, found.class_id, score, rank, outcome, *truth, truth_counts, truth_hit, num_classes=num_classes
    )


class _Boxes(NamedTuple):
    """Boxes of many frames."""

    frame: Int[ndarray, " n"]
    class_id: Int[ndarray, " n"]
    xywh: Float64[ndarray, "n 4"]

    def take(self, rows: Int[ndarray, " m"]) -> _Boxes:
        return _Boxes(*(values[rows] for values in self))

    def of_one_class(self) -> _Boxes:
        return self._replace(class_id=np.zeros_like(self.class_id))

    def group(self, num_classes: int) -> Int64[ndarray, " n"]:
        """A number for each pair of frame and class."""
        return self.frame.astype(np.int64) * num_classes + self.class_id

    def counts_in(self, area_scale: float) -> Bool[ndarray, "areas n"]:
        """Whether a box is of the sizes that each of `AREAS` counts."""
        area = self.xywh[:, 2] * self.xywh[:, 3] * area_scale
        limits = np.array(list(AREAS.values()))
        return (area >= limits[:, :1]) & (area <= limits[:, 1:])


def _by_frame_and_class(boxes: _Boxes, num_classes: int) -> Int[ndarray, " m"]:
    """Rows of the boxes of known classes, class by class: so pycocotools lists them, which settles equal scores."""
    known = np.flatnonzero((boxes.class_id >= 0) & (boxes.class_id < num_classes))
    return known[np.lexsort((boxes.class_id[known], boxes.frame[known]))]


@compiled
def _match_groups(
    ious, offsets, truth_counts, counts, start, stop, truth_start, truth_stop, iou_thresholds
):  # pragma: no cover (compiled)
    """Per frame and class: each prediction, best first, takes the free box of largest IoU; boxes of the area first."""
    num_areas, num_thresholds = len(counts), len(iou_thresholds)
    outcome = np.empty((num_areas, num_thresholds, counts.shape[1]), dtype=np.int8)
    truth_hit = np.zeros((num_thresholds, truth_counts.shape[1]), dtype=np.bool_)
    for group in range(len(start)):
        first_truth = truth_start[group]
        num_truth = truth_stop[group] - first_truth
        for area in range(num_areas):
            for level in range(num_thresholds):
                taken = np.zeros(num_truth, dtype=np.bool_)
                for row in range(start[group], stop[group]):
                    best, best_iou, best_counts = -1, min(iou_thresholds[level], 1 - 1e-10), False
                    for wanted in (True, False):
                        if best_counts:
                            break
                        for column in range(num_truth):
                            if truth_counts[area, first_truth + column] != wanted or taken[column]:
                                continue
                            if ious[offsets[row] + column] >= best_iou:
                                best, best_iou, best_counts = column, ious[offsets[row] + column], wanted
                    if best >= 0:
                        taken[best] = True
                        outcome[area, level, row] = 1 if best_counts else -1
                    else:
                        outcome[area, level, row] = 0 if counts[area, row] else -1
                if area == 0:
                    truth_hit[level, first_truth : first_truth + num_truth] = taken
    return outcome, truth_hit
