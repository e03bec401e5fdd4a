"""modules/evaluation/weighted.py against COCO's accumulation over frames that are there several times."""

from __future__ import annotations

import numpy as np
import pytest

from modules.evaluation.coco import accumulate
from modules.evaluation.matching import match
from modules.evaluation.weighted import WeightedAp, mean_over_classes
from tests.modules.evaluation.test_coco import NUM_CLASSES, random_boxes

FRAMES, GROUPS = 12, 4
GROUP_OF_FRAME = np.arange(FRAMES) % GROUPS


def several_times(boxes: tuple[np.ndarray, ...], weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """The frames of group g lie weights[g] times in the data set, each copy as a frame of its own."""
    copies = weights[GROUP_OF_FRAME]
    first = np.cumsum(copies) - copies

    def copied(frame: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
        rows = np.repeat(np.arange(len(frame)), copies[frame])
        number = np.concatenate([np.arange(copies[each]) for each in frame]) if len(frame) else frame
        return [first[frame[rows]] + number, *(column[rows] for column in columns)]

    truth_frame, truth_class, truth_xywh, frame, class_id, xywh, score = boxes
    found = copied(frame, class_id, xywh, score)
    return (*copied(truth_frame, truth_class, truth_xywh), *found)


@pytest.mark.parametrize("seed", range(6))
def test_weights_count_frames_several_times(seed: int) -> None:
    rng = np.random.default_rng(seed)
    *boxes, score = random_boxes(seed)
    boxes = (*boxes, score + rng.permutation(len(score)).astype(np.float32) * 1e-5)  # copies of equals would mix
    weights = rng.multinomial(GROUPS, np.full(GROUPS, 1 / GROUPS), size=30)  # more than one thread's
    weighted = WeightedAp.of(match(*boxes, NUM_CLASSES), GROUP_OF_FRAME, GROUPS)
    ap = weighted(weights)
    for row in range(3):
        curves = accumulate(match(*several_times(boxes, weights[row]), NUM_CLASSES))
        for class_id in range(NUM_CLASSES):
            expected = curves.summary(class_id)
            assert ap[row, class_id].mean() == pytest.approx(expected["AP"], abs=1e-12)
            assert ap[row, class_id, 0] == pytest.approx(expected["AP_50"], abs=1e-12)
        assert mean_over_classes(ap)[row] == pytest.approx(curves.summary()["AP"], abs=1e-12)


def test_groups_alone_are_what_their_frames_alone_give() -> None:
    matches = match(*random_boxes(3), NUM_CLASSES)  # with equal scores
    alone = mean_over_classes(WeightedAp.of(matches, GROUP_OF_FRAME, GROUPS).each_group())
    expected = [accumulate(matches.of_frames(group == GROUP_OF_FRAME)).summary()["AP"] for group in range(GROUPS)]
    assert alone.tolist() == pytest.approx(expected, abs=1e-12)


def test_nothing_found_and_nothing_there() -> None:
    none = np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4))
    box = np.array([0]), np.array([1]), np.array([[10.0, 10, 40, 40]])
    missed = WeightedAp.of(match(*box, *none, np.zeros(0), NUM_CLASSES), np.array([0]), 1)
    assert missed(np.array([[1]])).max(axis=2).tolist() == [[-1, 0, -1]]
    empty = WeightedAp.of(match(*none, *box, np.ones(1), NUM_CLASSES), np.array([0]), 1)
    assert mean_over_classes(empty(np.array([[1], [0]]))).tolist() == [-1, -1]
