"""Behaviour of modules/pictures/figures.py; that they can be read is for eyes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modules.evaluation.confusion import ConfusionMatrix
from modules.pictures.figures import draw_confusion_matrix, draw_curves, draw_report, write_confusion_matrix
from modules.reports.analysis import analyse
from tests.evaluations import CAR, HIT, boxes_of, found, result_of


def matrix(*names: str) -> ConfusionMatrix:
    counts = np.arange((len(names) + 1) ** 2).reshape(len(names) + 1, -1) * 1000
    return ConfusionMatrix(counts, (*names, "background"), 0.25)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("num_classes", [1, 12])
def test_size_grows_with_the_number_of_classes(num_classes: int, normalised: bool) -> None:
    picture = draw_confusion_matrix(matrix(*(f"class {index}" for index in range(num_classes))), normalised)
    assert picture.mode == "RGB"
    assert picture.width >= 90 * (num_classes + 1)


def test_many_classes_make_one_bounded_picture_beside_their_tables(tmp_path: Path) -> None:
    pictures = write_confusion_matrix(matrix(*(f"class {index}" for index in range(60))), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"counts.csv", "row_normalised.csv", "row_normalised.png"}
    assert max(pictures["row_normalised"].size) < 2000


def test_a_long_name_is_shortened_and_leaves_the_matrix_its_size() -> None:
    short, long = (np.asarray(draw_confusion_matrix(matrix(name)))[300] for name in ("car", "x" * 200))
    dark = [int((row[:, 2] < 200).sum()) for row in (short, long)]  # the first row's cell of 13 %, and ink
    assert len(long) < 1.5 * len(short)
    assert abs(dark[0] - dark[1]) < 100


# an error: mathtext that does not parse, or a warning for each letter that the font lacks
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [r"$\bad$", "a_b^{c", "100 %", "two\nlines\tand a tab", "\a\u202e\ud800"])
def test_names_are_text(name: str) -> None:
    draw_confusion_matrix(matrix(name, "car"))


def test_empty_matrix_can_be_drawn() -> None:
    matrix = ConfusionMatrix(np.zeros((2, 2), np.int64), ("car", "background"), 0.25)
    assert np.asarray(draw_confusion_matrix(matrix)).min() < 100  # the labels


def test_confusion_matrix_is_written_as_numbers_and_pictures(tmp_path: Path) -> None:
    result = result_of(("a", 600_000, boxes_of(CAR), found(HIT)))
    write_confusion_matrix(result.confusion, tmp_path)
    for name in ("counts", "row_normalised"):
        assert (tmp_path / f"{name}.csv").read_text().count("\n") == 10
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 500


def test_curves_are_drawn_as_soon_as_there_is_a_loss(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("step,val/AP\n10,0.1\n")
    assert draw_curves(metrics) is None
    metrics.write_text("step,train/loss,lr,val/AP,val/AP_50\n1,9.0,0.1,,\n2,nan,0.1,,\n3,5.0,0.2,,\n3,,,0.1,0.3\n")
    assert draw_curves(metrics).width > 1000


@pytest.mark.filterwarnings("error")
def test_curves_of_numbers_that_are_none(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("step,train/loss,lr,val/AP,val/AP_50\n1,nan,nan,,\n2,inf,0.1,nan,-1\n3,-1.0,0,,\n")
    assert draw_curves(metrics).width > 1000


@pytest.mark.parametrize("boxes", [boxes_of(CAR), boxes_of()], ids=["boxes", "no boxes"])
def test_page_is_drawn_from_any_analysis(boxes) -> None:
    result = result_of(("a", 600_000, boxes, found(HIT)))
    picture = draw_report(analyse(result.frames, result.protocol), "title")
    assert picture.width > picture.height > 1000
