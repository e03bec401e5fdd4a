"""modules/evaluation/coco.py against pycocotools, and its value where there is nothing to measure."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from numpy.random import default_rng
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from modules.evaluation.coco import NO_GROUND_TRUTH, accumulate
from modules.evaluation.matching import match

NUM_CLASSES = 3


def random_boxes(seed: int) -> tuple[np.ndarray, ...]:
    """Up to 12 frames; equal scores, crowded frames, unknown classes, and classes without ground truth occur."""
    rng = default_rng(seed)
    num_frames, num_truth, num_found = rng.integers(1, 12), rng.integers(1, 60), rng.integers(1, 1200)
    truth_xywh = np.column_stack([rng.uniform(0, 200, (num_truth, 2)), rng.uniform(5, 150, (num_truth, 2))]).round()
    truth_frame, truth_class = rng.integers(0, num_frames, num_truth), rng.integers(0, NUM_CLASSES + 1, num_truth)
    xywh = np.column_stack([rng.uniform(0, 200, (num_found, 2)), rng.uniform(5, 150, (num_found, 2))])
    near, near_to = rng.random(num_found) < 0.6, rng.integers(0, num_truth, num_found)
    xywh[near] = np.maximum(truth_xywh[near_to] + rng.normal(0, 6, (num_found, 4)), 1)[near]
    frame = np.where(near, truth_frame[near_to], rng.integers(0, num_frames, num_found))
    class_id = np.where(near, truth_class[near_to], rng.integers(0, NUM_CLASSES + 1, num_found))
    score = rng.random(num_found).round(2).astype(np.float32)
    return truth_frame, truth_class, truth_xywh, frame, class_id, xywh, score


def pycocotools(boxes: tuple[np.ndarray, ...], use_classes: bool) -> COCOeval:
    truth_frame, truth_class, truth_xywh, frame, class_id, xywh, score = boxes
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in range(12)],
        "categories": [{"id": number} for number in range(NUM_CLASSES)],
        "annotations": [
            {"id": i + 1, "image_id": int(truth_frame[i]), "category_id": int(truth_class[i]), "iscrowd": 0,
             "bbox": truth_xywh[i].tolist(), "area": float(truth_xywh[i, 2] * truth_xywh[i, 3])}
            for i in range(len(truth_frame))
        ],
    }  # fmt: skip
    found = [
        {"image_id": int(frame[i]), "category_id": int(class_id[i]), "bbox": xywh[i].tolist(), "score": float(score[i])}
        for i in range(len(frame))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.params.useCats = int(use_classes)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("use_classes", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_equals_pycocotools_to_the_last_digit(seed: int, use_classes: bool) -> None:
    boxes = random_boxes(seed)
    expected = pycocotools(boxes, use_classes)
    curves = accumulate(match(*boxes, NUM_CLASSES, use_classes))
    assert np.array_equal(curves.precision, expected.eval["precision"][..., -1].transpose(3, 0, 1, 2))
    assert np.array_equal(curves.recall, expected.eval["recall"][..., -1].transpose(2, 0, 1))
    assert list(curves.summary().values()) == expected.stats.tolist()


def test_class_without_ground_truth_has_no_figures_and_does_not_lower_the_mean() -> None:
    box, one = np.array([[0.0, 0, 40, 40]]), np.zeros(1, int)
    found = np.array([0, 0]), np.array([0, 1]), np.repeat(box, 2, axis=0), np.array([0.9, 0.9])
    curves = accumulate(match(one, one, box, *found, num_classes=2))
    assert curves.summary()["AP"] == pytest.approx(1)
    assert curves.summary(0)["AP"] == pytest.approx(1)
    assert curves.summary(1)["AP"] == NO_GROUND_TRUTH


def test_nothing_at_all_has_no_figures() -> None:
    none, no_boxes = np.zeros(0, int), np.zeros((0, 4))
    curves = accumulate(match(none, none, no_boxes, none, none, no_boxes, np.zeros(0), num_classes=2))
    assert set(curves.summary().values()) == {NO_GROUND_TRUTH}


def test_no_predictions_give_zero() -> None:
    none, one = np.zeros(0, int), np.zeros(1, int)
    curves = accumulate(match(one, one, np.array([[0.0, 0, 9, 9]]), none, none, np.zeros((0, 4)), np.zeros(0), 1))
    assert curves.summary()["AP"] == curves.summary()["AP_S"] == curves.summary()["AR_100"] == 0
    assert curves.summary()["AP_L"] == NO_GROUND_TRUTH
