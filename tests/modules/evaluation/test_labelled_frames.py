"""Behaviour of modules/evaluation/labelled_frames.py."""

from __future__ import annotations

import numpy as np

from modules.evaluation.labelled_frames import Boxes, LabelledFrames, Predictions


def frames(names: tuple[str, ...], sequence: list[int], t_us: list[int]) -> LabelledFrames:
    """Each frame has one prediction whose left edge is its time in ms; every second frame has one box like it."""
    count = len(t_us)
    numbers, kind = np.arange(count, dtype=np.int32), np.zeros(count, np.int32)
    xywh = np.column_stack([np.array(t_us) / 1000, np.zeros(count), np.ones((count, 2))]).astype(np.float32)
    confidence = np.full(count, 0.5, np.float32)
    return LabelledFrames(
        names,
        np.array(sequence, np.int32),
        np.array(t_us, np.int64),
        np.array(t_us, np.int64) // 10,
        Boxes(numbers[::2], kind[::2], xywh[::2]),
        Predictions(numbers, kind, xywh, confidence, confidence),
    )


def test_merging_sorts_by_name_and_time_whatever_the_order() -> None:
    one, two = frames(("b", "a"), [0, 1], [2000, 9000]), frames(("b",), [0], [1000])
    merged, other = LabelledFrames.merge([one, two]), LabelledFrames.merge([two, one])
    assert merged.sequence_names == ("a", "b")
    assert merged.t_us.tolist() == [9000, 1000, 2000]
    assert merged.event_count.tolist() == [900, 100, 200]
    assert merged.predictions.xywh[:, 0].tolist() == [9, 1, 2]
    assert merged.truth.xywh[:, 0].tolist() == [1, 2]
    assert merged.truth.frame.tolist() == [1, 2]
    assert np.array_equal(other.predictions.xywh, merged.predictions.xywh)


def test_a_frame_that_comes_twice_counts_once() -> None:
    merged = LabelledFrames.merge([frames(("a",), [0, 0], [1000, 2000]), frames(("a", "b"), [0, 1], [2000, 2000])])
    assert [(merged.sequence_names[s], t) for s, t in zip(merged.sequence, merged.t_us, strict=True)] == [
        ("a", 1000), ("a", 2000), ("b", 2000),
    ]  # fmt: skip
    assert len(merged.predictions) == 3


def test_merging_nothing_gives_no_frames() -> None:
    assert len(LabelledFrames.merge([])) == 0


def test_times_beyond_float32_stay_exact() -> None:
    merged = LabelledFrames.merge([frames(("a",), [0, 0], [16_777_217, 16_777_216])])
    assert merged.t_us.tolist() == [16_777_216, 16_777_217]


def test_masking_keeps_boxes_with_their_frames() -> None:
    kept = frames(("a",), [0] * 4, [0, 1000, 2000, 3000]).mask(np.array([False, True, True, False]))
    assert kept.t_us.tolist() == [1000, 2000]
    assert kept.truth.frame.tolist() == [1]
    assert kept.truth.xywh[0, 0] == 2


def test_scores() -> None:
    one = np.array([0.5], np.float32)
    predictions = Predictions(np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros((1, 4), np.float32), one, one / 2)
    assert predictions.score("product").tolist() == [0.125]
    assert predictions.score("class").tolist() == [0.25]
