"""Behaviour of modules/pictures/text.py."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from modules.evaluation.confusion import ConfusionMatrix
from modules.pictures import text
from modules.pictures.figures import draw_confusion_matrix
from modules.pictures.text import in_all_fonts, in_one_font, shown, shown_apart

CAR = "\u6c7d\u8eca"  # in Chinese


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("two\nlines\tand\u2028more", "two lines and more"),
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("\u202eround", "\\u202eround"),
        (r"$\bad$", r"$\bad$"),
        ("a" * 30 + "b" * 32, "a" * 16 + "…" + "b" * 7),
    ],
)
def test_a_name_is_one_short_line(name: str, expected: str) -> None:
    assert shown(name) == expected


def test_names_that_would_read_alike_get_their_class_id() -> None:
    names = ["a" * 30 + letter + "z" * 30 for letter in "xy"]
    assert shown_apart([*names, "car"]) == ["0: aaaaaaaaaaaaa…zzzzzzz", "1: aaaaaaaaaaaaa…zzzzzzz", "car"]


@pytest.fixture
def forget() -> Iterator[None]:
    """What is known of this machine's fonts, before and after."""
    known = (text._font_of, text._font_files, text._letters, text.in_one_font)
    for function in known:
        function.cache_clear()
    text._told.clear()
    yield
    for function in known:
        function.cache_clear()
    text._told.clear()


@pytest.fixture
def lacking(forget: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no font but matplotlib's own."""
    own = [font for font in font_manager.fontManager.ttflist if "matplotlib" in font.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)


def test_letters_that_no_font_has_are_code_points_and_told_once(lacking: None) -> None:
    with pytest.warns(UserWarning, match="no font here has .*Noto"):
        assert in_all_fonts([CAR, "car"]) == [r"\u6c7d\u8eca", "car"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert in_one_font(CAR + " car", 12)[0] == r"\u6c7d\u8eca car"
        in_all_fonts(["\u6f22"])


def test_fonts_of_the_machine_fill_in(lacking: None, tmp_path: Path) -> None:
    write_font(tmp_path / "chinese.ttf", CAR)
    font_manager.fontManager.addfont(tmp_path / "chinese.ttf")
    matrix = ConfusionMatrix(np.eye(2, dtype=np.int64), (CAR, "background"), 0.25)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert in_all_fonts([CAR]) == [CAR]
        shown_text, font = in_one_font(CAR, 12)
        draw_confusion_matrix(matrix)
    assert (shown_text, font.getname()[0]) == (CAR, "Chinese")


def write_font(path: Path, letters: str) -> None:
    """A font of boxes."""
    names = [".notdef", *(f"g{index}" for index in range(len(letters)))]
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:], strict=True)})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Chinese", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
