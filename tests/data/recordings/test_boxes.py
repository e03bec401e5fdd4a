"""Boxes by field name, and what happens to those that cannot be used."""

from pathlib import Path

import numpy as np
import pytest

from config.errors import UserError
from config.loading import load_dataset_config
from data.boxes import BOX_DTYPE
from data.recordings.boxes import clean_boxes, crop_boxes, read_boxes

GOLDEN = Path(__file__).parents[2] / "golden"
ETRAM = {index: index for index in range(8)}
PACKED_OTHER_ORDER = [
    ("class_id", "u1"), ("ts", "<u8"), ("h", "<f8"), ("w", "<f8"), ("y", "<f8"), ("x", "<f8"), ("confidence", "<f4")
]  # fmt: skip


def make_boxes(*rows: tuple[float, float, float, float, int]) -> np.ndarray:
    """Boxes from (x, y, w, h, class)."""
    boxes = np.zeros(len(rows), BOX_DTYPE)
    for name, values in zip(("x", "y", "w", "h", "class_id"), zip(*rows, strict=True), strict=True):
        boxes[name] = values
    return boxes


def clean(boxes: np.ndarray, *, is_train: bool = True, overrides: tuple[str, ...] = ()) -> tuple[list, dict]:
    settings = load_dataset_config(["dataset=gen4", *overrides]).preprocessing
    kept, dropped = clean_boxes(boxes, (720, 1280), settings, ETRAM, is_train=is_train)
    return kept[["x", "y", "w", "h", "class_id"]].tolist(), dict(dropped)


def test_fields_are_found_by_name_in_both_spellings(tmp_path: Path) -> None:
    raw = np.zeros(2, PACKED_OTHER_ORDER)
    raw["ts"], raw["x"], raw["y"], raw["w"], raw["h"] = (200, 100), (1, 5), (2, 6), (3, 7), (4, 8)
    raw["class_id"], raw["confidence"] = (6, 7), (0.5, 0.25)
    np.save(tmp_path / "a_bbox.npy", raw)
    boxes = read_boxes(tmp_path / "a_bbox.npy")
    assert boxes.dtype == BOX_DTYPE
    assert boxes.tolist() == [(100, 5, 6, 7, 8, 7, 0, 0.25), (200, 1, 2, 3, 4, 6, 0, 0.5)]  # in order of time


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "damaged"), (b"\x93NUMPY\x01\x00", "damaged"), (None, "not found")]
)
def test_an_unreadable_box_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a_bbox.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"a_bbox.npy.*{message}"):
        read_boxes(path)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a_bbox.npy", np.zeros(1, [("t", "<i8"), ("x", "<f4")]))
    with pytest.raises(UserError, match=r"a_bbox.npy has no field 'y'"):
        read_boxes(tmp_path / "a_bbox.npy")


def test_filters_equal_rvts_step_by_step() -> None:
    golden = np.load(GOLDEN / "preproc_filters.npz")
    boxes = read_boxes(GOLDEN / "raw_gen4" / "train" / "moorea_open_000_bbox.npy")
    boxes["track_id"] = np.arange(len(boxes))  # carries the row number through
    cropped = crop_boxes(boxes[golden["after_class_filter"]], (720, 1280))
    seen = cropped[(cropped["w"] > 0) & (cropped["h"] > 0)]
    assert np.array_equal(seen["track_id"], golden["after_crop_to_fov"])
    assert np.array_equal(np.stack([seen[name] for name in "xywh"], axis=1), golden["boxes_after_crop_to_fov"])
    settings = load_dataset_config(["dataset=gen4_1mpx"]).preprocessing
    for is_train, expected in ((False, "after_conservative"), (True, "after_huge")):
        kept, _ = clean_boxes(boxes, (720, 1280), settings, {0: 0, 1: 1, 2: 2}, is_train=is_train)
        assert np.array_equal(kept["track_id"], golden[expected])
    strict = settings.model_copy(update={"min_box_diagonal": 60, "min_box_side": 20})
    kept, _ = clean_boxes(boxes, (720, 1280), strict, {0: 0, 1: 1, 2: 2}, is_train=False)
    assert np.array_equal(kept["track_id"], golden["alt_after_psee_bbox_filter"])


def test_every_dropped_box_has_a_reason() -> None:
    boxes = make_boxes(
        (10, 10, 20, 20, 0),
        (10, 10, 20, 20, 8),
        (np.nan, 10, 20, 20, 0),
        (10, 10, np.inf, 20, 0),
        (-50, 10, 20, 20, 0),
        (10, 719, 20, 20, 0),
        (10, 10, 4.9, 20, 0),
        (1276, 10, 20, 20, 0),
        (10, 10, -20, 20, 0),
        (0, 10, 1153, 20, 0),
    )
    kept, dropped = clean(boxes)
    assert kept == [(10, 10, 20, 20, 0)]
    reasons = {
        "of class id 8, not in class_ids": 1,
        "not finite": 2,
        "outside the sensor": 3,
        "too small": 2,
        "too wide": 1,
    }
    assert dropped == reasons


def test_wide_boxes_are_dropped_from_training_only() -> None:
    boxes = make_boxes((0, 10, 1153, 20, 0), (0, 10, 1152, 20, 0))
    assert len(clean(boxes)[0]) == 1
    assert len(clean(boxes, is_train=False)[0]) == 2
    assert len(clean(boxes, overrides=("dataset.preprocessing.max_box_width_fraction_train=null",))[0]) == 2


def test_a_box_is_cropped_to_the_last_pixel() -> None:
    kept, _ = clean(make_boxes((-5, 700, 20, 40, 3), (1270, -1, 100, 30, 2)))
    assert kept == [(0, 700, 15, 19, 3), (1270, 0, 9, 29, 2)]


def test_ids_of_the_file_become_ids_of_the_data_set() -> None:
    """Also where the two overlap: 0 -> 2 and 2 -> 0."""
    boxes = make_boxes((10, 10, 20, 20, 0), (10, 10, 20, 20, 2), (10, 10, 20, 20, 1))
    settings = load_dataset_config(["dataset=gen4"]).preprocessing
    kept, dropped = clean_boxes(boxes, (720, 1280), settings, {0: 2, 2: 0}, is_train=False)
    assert kept["class_id"].tolist() == [2, 0]
    assert dropped == {"of class id 1, not in class_ids": 1}
