from __future__ import annotations

import numpy as np

from data.labels import Labels
from data.tracks import tracks_of


def labels(*rows: tuple[int, int, int, float]) -> Labels:
    """Rows of frame, track id, class and x; boxes are 10 pixels wide."""
    frames = sorted({row[0] for row in rows})
    ordered = sorted(rows)
    boxes = np.array([(class_id, x, 5, 10, 20) for _, _, class_id, x in ordered], np.float32)
    image = np.array([frames.index(row[0]) for row in ordered])
    return Labels(np.array(frames), boxes, image, np.array([row[1] for row in ordered]))


def test_a_track_has_its_boxes_in_order_and_lies_on_a_line_between_them() -> None:
    found = sorted(
        tracks_of(labels((2, 7, 0, 10), (6, 7, 0, 14), (2, 9, 1, 50), (6, 9, 1, 50))), key=lambda t: t.class_id
    )
    assert [(track.class_id, track.frames.tolist()) for track in found] == [(0, [2, 6]), (1, [2, 6])]
    assert found[0].box_at(3).tolist() == [11, 5, 10, 20]
    assert found[0].box_at(1) is None
    assert found[0].box_at(7) is None
    assert found[0].mean_area == 200


def test_a_track_ends_at_a_gap_at_another_class_and_where_the_box_jumps() -> None:
    gap = labels((0, 1, 0, 10), (1, 1, 0, 10), (12, 1, 0, 10), (13, 1, 0, 10))
    assert [track.frames.tolist() for track in tracks_of(gap)] == [[0, 1], [12, 13]]
    other_class = labels((0, 1, 0, 10), (1, 1, 0, 10), (2, 1, 4, 10), (3, 1, 4, 10))
    assert [track.class_id for track in tracks_of(other_class)] == [0, 4]
    jump = labels((0, 1, 0, 10), (1, 1, 0, 15), (2, 1, 0, 90), (3, 1, 0, 95))
    assert [track.frames.tolist() for track in tracks_of(jump)] == [[0, 1], [2, 3]]


def test_what_is_seen_once_or_shares_its_id_is_no_track() -> None:
    assert not list(tracks_of(labels((0, 1, 0, 10), (1, 2, 0, 10))))
    shared = labels((0, 0, 0, 10), (0, 0, 0, 60), (1, 0, 0, 10), (1, 5, 0, 60), (2, 5, 0, 60))
    assert [track.boxes[0, 0] for track in tracks_of(shared)] == [60]
    no_ids = labels((0, 1, 0, 10), (1, 1, 0, 10))
    assert not list(tracks_of(Labels(no_ids.frames, no_ids.boxes, no_ids.box_image)))
    assert not list(tracks_of(Labels.none()))
