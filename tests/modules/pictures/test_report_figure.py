"""Behaviour of modules/pictures/report_figure.py; that it can be read is for eyes."""

from __future__ import annotations

import pytest

from modules.pictures.report_figure import draw_report
from modules.reports.analysis import analyse
from tests.evaluations import CAR, HIT, boxes_of, found, result_of


@pytest.mark.parametrize("boxes", [boxes_of(CAR), boxes_of()], ids=["boxes", "no boxes"])
def test_page_is_drawn_from_any_analysis(boxes) -> None:
    result = result_of(("a", 600_000, boxes, found(HIT)))
    picture = draw_report(analyse(result.frames, result.protocol), "title")
    assert picture.width > picture.height > 1000
