"""Behaviour of modules/evaluation/protocol.py."""

from __future__ import annotations

import pytest
import torch

from config.schema import BoxFilterConfig
from modules.evaluation.labelled_frames import LabelledFrames
from modules.evaluation.protocol import apply_box_filter
from tests.evaluations import CAR, HIT, boxes_of, found, result_of

FILTER = BoxFilterConfig(min_diagonal=30, min_side=10, skip_first_ms=500)


def filtered(*frames: tuple) -> LabelledFrames:
    return apply_box_filter(result_of(*frames).frames, FILTER)


@pytest.mark.parametrize(
    ("width", "height", "kept"),
    [(10, 40, True), (9.9, 40, False), (40, 9.9, False), (18, 24, True), (18, 23.9, False), (600, 300, True)],
)
def test_small_boxes_and_predictions_are_dropped(width: float, height: float, kept: bool) -> None:
    box = boxes_of((1, 300, 200, width, height))
    same = found((300, 200, 300 + width, 200 + height, 0.9, 0.9, 1))
    frames = filtered(("a", 600_000, torch.cat([boxes_of(CAR), box]), torch.cat([found(HIT), same])))
    assert len(frames.truth) == len(frames.predictions) == (2 if kept else 1)


def test_the_first_half_second_is_left_out_to_the_microsecond() -> None:
    frames = filtered(*(("a", t_us, boxes_of(CAR), found(HIT)) for t_us in (499_999, 500_000, 500_001)))
    assert frames.t_us.tolist() == [500_001]
    assert len(frames.predictions) == 1


def test_frames_without_ground_truth_go_with_their_predictions() -> None:
    frames = filtered(
        ("a", 600_000, boxes_of(), found(HIT)),
        ("a", 700_000, boxes_of(CAR), found()),
        ("a", 800_000, boxes_of((1, 50, 50, 5, 5)), found(HIT)),
    )
    assert frames.t_us.tolist() == [700_000]
    assert len(frames.predictions) == 0


def test_frame_with_an_unknown_class_only_stays() -> None:
    frames = filtered(("a", 600_000, boxes_of((9, *CAR[1:])), found(HIT)))
    assert (len(frames), len(frames.predictions)) == (1, 1)


def test_predictions_that_are_not_numbers_are_dropped() -> None:
    nan = float("nan")
    bad = [(nan, 60, 140, 140, 0.9, 0.9, 1), (60, 60, 140, 140, nan, 0.9, 1), (60, 60, 140, 140, 0.9, nan, 1)]
    assert len(filtered(("a", 600_000, boxes_of(CAR), found(*bad, HIT))).predictions) == 1
