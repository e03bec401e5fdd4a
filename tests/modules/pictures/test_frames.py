"""Behaviour of modules/pictures/frames.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.pictures.frames import BACKGROUND_RGB, PictureBoxes, class_rgb, draw_events, draw_frame, draw_legend

CLASSES = ("car", "bus")


def frame(height: int = 90, width: int = 160) -> np.ndarray:
    return np.zeros((20, height, width), np.uint8)


def boxes(*rows: tuple[float, ...], scores: list[float] | None = None) -> PictureBoxes:
    """Rows are (class, left, top, width, height)."""
    array = np.array(rows, np.float32).reshape(-1, 5)
    return PictureBoxes(
        array[:, 1:], array[:, 0].astype(int), np.array(scores, np.float32) if scores is not None else None
    )


def test_polarity_gives_the_colour() -> None:
    events = frame()
    events[5, 0, 0] = events[15, 0, 1] = 3
    darker, brighter, nothing = draw_events(events)[0, :3].astype(int)
    assert darker[2] > darker[0]
    assert brighter[0] > brighter[2]
    assert tuple(nothing) == BACKGROUND_RGB


def test_more_and_later_events_are_brighter() -> None:
    events = frame()
    events[15, 0, 0], events[15, 0, 1], events[10, 0, 2] = 1, 9, 1
    once, often, early = draw_events(events)[0, :3].astype(int).sum(axis=1)
    assert often > once > early > sum(BACKGROUND_RGB)


def test_full_counts_do_not_overflow() -> None:
    assert draw_events(np.full((20, 4, 4), 255, np.uint8)).max() > 100


@pytest.mark.parametrize(("width", "expected"), [(160, 1280), (640, 1280), (346, 1384), (1280, 1280), (2000, 2000)])
def test_small_frames_are_enlarged_by_whole_factors(width: int, expected: int) -> None:
    assert draw_frame(frame(40, width), CLASSES).width == expected


def test_prediction_is_outlined_in_its_class_colour_at_its_place() -> None:
    picture = np.asarray(draw_frame(frame(), CLASSES, boxes((1, 50, 40, 40, 30), scores=[0.9])))
    assert tuple(picture[8 * 60, 8 * 50]) == class_rgb(1)
    assert tuple(picture[8 * 60, 8 * 90]) == class_rgb(1)
    assert tuple(picture[8 * 20, 8 * 20]) == BACKGROUND_RGB


def test_ground_truth_is_white_and_dashed() -> None:
    edge = np.asarray(draw_frame(frame(), CLASSES, truth=boxes((0, 50, 40, 40, 30))))[8 * 70, 8 * 50 : 8 * 90]
    white = (edge == 255).all(axis=1)
    assert 0.3 < white.mean() < 0.9


@pytest.mark.parametrize("row", [(0, -30, -20, 60, 40), (1, 150, 85, 60, 40), (7, 20, 20, 30, 30), (0, 500, 500, 9, 9)])
def test_boxes_beyond_the_border_and_unknown_classes_can_be_drawn(row: tuple[float, ...]) -> None:
    picture = draw_frame(frame(), CLASSES, boxes(row, scores=[0.5]), boxes(row), caption="street · 1.00 s")
    assert picture.size == (1280, 720)


def test_no_boxes_draw_nothing() -> None:
    assert np.array_equal(draw_frame(frame(), CLASSES, boxes(), boxes()), draw_frame(frame(), ()))


def test_boxes_of_detections_are_those_of_enough_score() -> None:
    detections = torch.tensor([[10.0, 20, 40, 60, 0.5, 0.8, 1], [0, 0, 5, 5, 0.5, 0.4, 0]])
    by_product = PictureBoxes.from_detections(detections, "product", 0.25)
    assert by_product.xywh.tolist() == [[10, 20, 30, 40]]
    assert by_product.class_id.tolist() == [1]
    assert by_product.scores.tolist() == pytest.approx([0.4])
    assert len(PictureBoxes.from_detections(detections, "class", 0.25).xywh) == 2


def test_boxes_of_centres() -> None:
    assert PictureBoxes.from_centres(np.array([[1, 30, 40, 20, 10]], np.float32)).xywh.tolist() == [[20, 35, 20, 10]]


def test_classes_have_colours_of_their_own() -> None:
    assert len({class_rgb(index) for index in range(40)}) == 40


def test_legend_wraps_to_the_width() -> None:
    names = [f"class number {index}" for index in range(12)]
    wide, narrow = draw_legend(names, 2000), draw_legend(names, 400)
    assert (wide.width, narrow.width) == (2000, 400)
    assert narrow.height > wide.height


def test_legend_names_ground_truth_where_there_is_some() -> None:
    """It comes last: the rest stays as it is."""
    with_truth, without = (np.asarray(draw_legend(["car"], 800, has_truth)) for has_truth in (True, False))
    last = np.flatnonzero(without.any(axis=(0, 2))).max()
    assert np.array_equal(with_truth[:, : last + 1], without[:, : last + 1])
    assert with_truth[:, last + 1 :].any()
