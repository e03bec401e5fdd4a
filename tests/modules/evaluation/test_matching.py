"""Behaviour of modules/evaluation/matching.py."""

from __future__ import annotations

import numpy as np

from modules.evaluation.matching import Matches, match


def matches(truth: list[tuple], found: list[tuple], num_classes: int = 2, use_classes: bool = True) -> Matches:
    """Rows are (frame, class, left, top, width, height), those found with a score behind."""
    gt, dt = np.array(truth, float).reshape(-1, 6), np.array(found, float).reshape(-1, 7)
    return match(
        gt[:, 0].astype(int), gt[:, 1].astype(int), gt[:, 2:],
        dt[:, 0].astype(int), dt[:, 1].astype(int), dt[:, 2:6], dt[:, 6], num_classes, use_classes,
    )  # fmt: skip


def test_best_score_takes_the_box_and_the_next_one_is_false() -> None:
    found = matches([(0, 0, 0, 0, 10, 10)], [(0, 0, 0, 0, 10, 8, 0.3), (0, 0, 0, 0, 10, 10, 0.9)])
    assert found.score.tolist() == [0.9, 0.3]
    assert found.outcome[0, 0].tolist() == [1, 0]


def test_iou_threshold_decides_what_is_a_hit() -> None:
    """Eight of ten pixels: IoU 0.8, which reaches the thresholds .5, .55, ... .8."""
    found = matches([(0, 0, 0, 0, 10, 10)], [(0, 0, 0, 0, 10, 8, 0.5)])
    assert found.outcome[0, :, 0].tolist() == [1] * 7 + [0] * 3
    assert found.truth_hit[:, 0].tolist() == [True] * 7 + [False] * 3


def test_a_box_of_another_class_or_frame_is_no_hit() -> None:
    truth = [(0, 0, 0, 0, 10, 10)]
    assert matches(truth, [(0, 1, 0, 0, 10, 10, 0.9)]).outcome[0, 0].tolist() == [0]
    assert matches(truth, [(1, 0, 0, 0, 10, 10, 0.9)]).outcome[0, 0].tolist() == [0]
    assert matches(truth, [(0, 1, 0, 0, 10, 10, 0.9)], use_classes=False).outcome[0, 0].tolist() == [1]


def test_boxes_outside_an_area_neither_hit_nor_harm() -> None:
    """A 100 x 100 box is large, not small."""
    found = matches([(0, 0, 0, 0, 100, 100)], [(0, 0, 0, 0, 100, 100, 0.9)])
    assert found.outcome[:, 0, 0].tolist() == [1, -1, -1, 1]
    assert found.truth_counts[:, 0].tolist() == [True, False, False, True]


def test_only_the_best_hundred_of_a_frame_and_class_count() -> None:
    found = matches([], [(0, 0, 0, 0, 5, 5, score / 1000) for score in range(150)] + [(0, 1, 0, 0, 5, 5, 0.001)])
    assert (found.class_id == 0).sum() == 100
    assert found.score.min() == 0.001
    assert found.score[found.class_id == 0].min() == 0.05


def test_classes_beyond_the_list_take_no_part() -> None:
    found = matches([(0, 5, 0, 0, 9, 9)], [(0, 2, 0, 0, 9, 9, 0.9), (0, -1, 0, 0, 9, 9, 0.9), (0, 1, 0, 0, 9, 9, 0.5)])
    assert found.class_id.tolist() == [1]
    assert len(found.truth_class) == 0


def test_choosing_frames_leaves_the_rest_out() -> None:
    truth = [(0, 0, 0, 0, 10, 10), (1, 0, 0, 0, 10, 10)]
    found = matches(truth, [(0, 0, 0, 0, 10, 10, 0.9), (1, 0, 50, 50, 10, 10, 0.8)])
    second = found.of_frames(np.array([False, True]))
    assert second.outcome[0, 0].tolist() == [0]
    assert second.truth_hit[0].tolist() == [False]
