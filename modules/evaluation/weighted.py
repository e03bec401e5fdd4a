"""AP of many weightings of groups of frames from one matching: single sequences, and resamples with repetition.

A weight w counts each frame of the group w times, as if its files lay w times in the data set. One weighting costs one
pass over the predictions, without matching or sorting anything again.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int, Int32, Int64, UInt16
from numpy import ndarray

from data.compiled import compiled
from modules.evaluation.coco import NO_GROUND_TRUTH, RECALL_POINTS
from modules.evaluation.matching import IOU_THRESHOLDS, Matches

LEVEL_50 = 0  # index of IoU 0.5
_WEIGHTINGS_A_CALL = 25  # of a thread, so that all end at about the same time


@dataclass(frozen=True)
class WeightedAp:
    """Predictions of each class in falling order of score, and the ground truth of each class and group."""

    group: Int32[ndarray, " d"]
    hit_levels: UInt16[ndarray, " d"]  # bit l: a hit at IOU_THRESHOLDS[l]
    class_start: Int64[ndarray, " classes_and_one"]
    num_truth: Int64[ndarray, "classes groups"]

    @classmethod
    def of(cls, matches: Matches, group_of_frame: Int[ndarray, " frames"], num_groups: int) -> WeightedAp:
        """`group_of_frame`: such as the sequence of each frame, 0..num_groups-1."""
        assert not (matches.outcome[0] < 0).any(), "of all sizes, every prediction counts"
        order = np.lexsort((-matches.score, matches.class_id))
        bits = (matches.outcome[0] == 1).astype(np.uint16) << np.arange(len(IOU_THRESHOLDS), dtype=np.uint16)[:, None]
        truth = matches.truth_class.astype(np.int64) * num_groups + group_of_frame[matches.truth_frame]
        counts = np.bincount(truth, minlength=matches.num_classes * num_groups)
        return cls(
            group_of_frame[matches.frame][order].astype(np.int32),
            np.bitwise_or.reduce(bits, axis=0)[order],
            np.searchsorted(matches.class_id[order], np.arange(matches.num_classes + 1)).astype(np.int64),
            counts.reshape(matches.num_classes, num_groups).astype(np.int64),
        )

    @property
    def num_groups(self) -> int:
        return self.num_truth.shape[1]

    def __call__(self, weights: Int[ndarray, "w groups"]) -> Float64[ndarray, "w classes iou"]:
        """AP of each class and IoU threshold under each weighting; -1 where a class has no ground truth."""
        weights = np.ascontiguousarray(weights, dtype=np.int64)
        parts = [weights[i : i + _WEIGHTINGS_A_CALL] for i in range(0, len(weights), _WEIGHTINGS_A_CALL)]
        arrays = (self.group, self.hit_levels, self.class_start, self.num_truth, RECALL_POINTS, len(IOU_THRESHOLDS))
        if len(parts) < 2:
            return _weighted_ap(weights, *arrays)
        first = _weighted_ap(parts[0], *arrays)  # compiles, once
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return np.concatenate([first, *pool.map(lambda part: _weighted_ap(part, *arrays), parts[1:])])

    def each_group(self) -> Float64[ndarray, "groups classes iou"]:
        """AP of each group alone."""
        return self(np.eye(self.num_groups, dtype=np.int64))


def mean_over_classes(ap: Float64[ndarray, "w classes iou"]) -> Float64[ndarray, " w"]:
    """COCO's AP of each weighting: over all classes that have ground truth in it; -1 where none has."""
    measured = ap > NO_GROUND_TRUTH
    count = measured.sum(axis=(1, 2))
    total = np.where(measured, ap, 0).sum(axis=(1, 2))
    return np.where(count > 0, total / np.maximum(count, 1), NO_GROUND_TRUTH)


@compiled
def _weighted_ap(
    weights, group, hit_levels, class_start, num_truth, recall_points, num_levels
):  # pragma: no cover (compiled)
    """Predictions that hit at no IoU threshold, which are most, only add to a common count."""
    num_classes = len(class_start) - 1
    ap = np.full((len(weights), num_classes, num_levels), -1.0)
    most_hits = 0
    for c in range(num_classes):
        count = 0
        for row in range(class_start[c], class_start[c + 1]):
            count += hit_levels[row] > 0
        most_hits = max(most_hits, count)
    hits_at = np.empty((num_levels, most_hits))
    precision_at = np.empty((num_levels, most_hits))
    for index in range(len(weights)):
        weight = weights[index]
        for c in range(num_classes):
            truth = 0
            for g in range(len(weight)):
                truth += weight[g] * num_truth[c, g]
            if truth == 0:
                continue
            seen = 0
            hits = np.zeros(num_levels, dtype=np.int64)
            number = np.zeros(num_levels, dtype=np.int64)
            for row in range(class_start[c], class_start[c + 1]):
                w = weight[group[row]]
                if w == 0:
                    continue
                seen += w
                levels = hit_levels[row]
                if levels == 0:
                    continue
                for level in range(num_levels):
                    if levels >> level & 1:
                        hits[level] += w
                        hits_at[level, number[level]] = hits[level]
                        precision_at[level, number[level]] = hits[level] / (seen + np.spacing(1.0))
                        number[level] += 1
            for level in range(num_levels):
                point, best, total = len(recall_points) - 1, 0.0, 0.0
                last = number[level] - 1
                while point >= 0 and (last < 0 or recall_points[point] > hits_at[level, last] / truth):
                    point -= 1
                for k in range(last, -1, -1):
                    best = max(best, precision_at[level, k])
                    below = hits_at[level, k - 1] / truth if k > 0 else -1.0
                    while point >= 0 and recall_points[point] > below:
                        total += best
                        point -= 1
                ap[index, c, level] = total / len(recall_points)
    return ap
