"""Behaviour of modules/reports/analysis.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modules.reports.analysis import Analysis, analyse
from tests.evaluations import CAR, HIT, boxes_of, found, result_of


def analysis(*frames: tuple, event_count: list[int] | None = None) -> Analysis:
    result = result_of(*frames)
    data = result.frames
    if event_count:
        data = replace(data, event_count=np.array(event_count, np.int64))
    return analyse(data, result.protocol)


def test_recall_by_size_counts_boxes_of_each_size() -> None:
    """Two boxes of side 80, one hit by a sure prediction, the other by an unsure one; one of side 22, missed."""
    unsure = (*HIT[:4], 0.3, 0.3, 1)
    by_size = analysis(
        ("a", 600_000, boxes_of(CAR, (1, 300, 200, 22, 22)), found(HIT)),
        ("a", 700_000, boxes_of(CAR), found(unsure)),
    ).by_size
    assert [row[:4] for row in by_size.rows] == [["16 - 24", 1, 0.0, 0.0], ["64 - 96", 2, 1.0, 0.5]]


def test_ap_by_time_since_the_start() -> None:
    by_time = analysis(
        ("a", 600_000, boxes_of(CAR), found()),
        ("a", 3_000_000, boxes_of(CAR), found(HIT)),
        ("b", 4_999_999, boxes_of(CAR), found(HIT)),
    ).by_time
    assert [row[:3] for row in by_time.rows] == [["0 - 1", 1, 1], ["2 - 5", 2, 2]]
    assert [row[3] for row in by_time.rows] == [0, pytest.approx(1)]


def test_ap_by_event_rate() -> None:
    """50 ms windows of 1,000 and 100,000 events: 0.02 and 2 million events per second."""
    frames = [("a", 600_000 + 100_000 * i, boxes_of(CAR), found(HIT) if i < 5 else found()) for i in range(10)]
    rows = analysis(*frames, event_count=[1_000] * 5 + [100_000] * 5).by_event_rate.rows
    assert [row[:2] for row in rows] == [["0.02 - 0.02", 5], ["2.00 - 2.00", 5]]
    assert [row[3] for row in rows] == [pytest.approx(1), 0]


def test_equal_event_rates_make_one_group() -> None:
    rows = analysis(*(("a", 600_000 + i, boxes_of(CAR), found(HIT)) for i in range(3))).by_event_rate.rows
    assert [row[1:3] for row in rows] == [[3, 3]]


def test_precision_recall_has_the_classes_with_ground_truth() -> None:
    table = analysis(("a", 600_000, boxes_of(CAR), found(HIT))).precision_recall
    assert list(table.header) == ["recall", "car"]
    assert len(table.rows) == 101
    assert table.rows[0] == [0, pytest.approx(1)]


def test_nothing_to_analyse() -> None:
    empty = analysis(("a", 600_000, boxes_of(), found(HIT)))
    assert empty.by_size.rows == empty.by_time.rows == empty.by_event_rate.rows == []
    assert empty.precision_recall.header == ["recall"]
