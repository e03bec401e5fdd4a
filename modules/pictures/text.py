"""Names as a picture can show them: plain text in one line, of bounded length, in letters that a font here has."""

from __future__ import annotations

import contextlib
import unicodedata
import warnings
from collections.abc import Container, Generator, Iterable, Sequence
from functools import cache, lru_cache

from matplotlib import font_manager, style
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

MOST_LETTERS = 24  # of a name in a picture; files keep the whole name
FONT = "DejaVu Sans"  # matplotlib brings it along: it is there on any machine
_NO_FONT = "Last Resort"  # a box for any letter
_told: list[str] = []
_JOINERS = "\u200c\u200d"  # format characters that scripts need; others could turn a text round


def shown(text: str, most: int = MOST_LETTERS) -> str:
    """The text in one line of at most `most` letters: its middle is left out, control characters are code points."""
    line = " ".join("".join(_visible(letter) for letter in text).split())
    if len(line) <= most:
        return line
    tail = (most - 1) // 3
    return f"{line[: most - 1 - tail]}…{line[len(line) - tail :]}"


def shown_apart(names: Sequence[str], most: int = MOST_LETTERS) -> list[str]:
    """`shown` names of several classes; those that would read alike get the class id in front."""
    short = [shown(name, most) for name in names]
    return [
        name if short.count(name) == 1 else shown(f"{index}: {names[index]}", most) for index, name in enumerate(short)
    ]


def _visible(letter: str) -> str:
    if letter.isspace():
        return " "
    is_hidden = unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Cn") and letter not in _JOINERS
    return _code_point(letter) if is_hidden else letter


def _code_point(letter: str) -> str:
    number = ord(letter)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


# --- fonts -----------------------------------------------------------------------------------------------------------


@lru_cache(4096)
def in_one_font(text: str, size: int, most: int = MOST_LETTERS) -> tuple[str, ImageFont.FreeTypeFont]:
    """`shown` text and a font for Pillow, which takes one for a whole text: other fonts' letters are code points."""
    needed = {letter for letter in text if not letter.isspace()}
    fonts = dict.fromkeys([_font_file(FONT), *(file for letter in needed if (file := _font_of(letter)))])
    best = max(fonts, key=lambda file: len(needed & _letters(file)))  # the first of equals: ours
    _tell_of_lacking([text])
    return shown(_in_letters(text, _letters(best)), most), _pillow_font(best, size)


@contextlib.contextmanager
def plain_figures(*texts: str) -> Generator[None]:
    """Draw matplotlib figures in here: text is text, whatever a user's matplotlibrc says; fonts for `texts` join in."""
    files = {file for text in texts for letter in text if (file := _font_of(letter))}
    families = [font.name for font in font_manager.fontManager.ttflist if font.fname in files and font.name != FONT]
    with style.context(["default", {"text.parse_math": False, "font.family": [FONT, *dict.fromkeys(families)]}]):
        yield


def in_all_fonts(names: Sequence[str], most: int = MOST_LETTERS) -> list[str]:
    """`shown_apart` names for matplotlib, which mixes the fonts of `plain_figures`: few letters are code points."""
    _tell_of_lacking(names)
    return shown_apart([_in_letters(name, _LettersOfAll()) for name in names], most)


class _LettersOfAll:
    def __contains__(self, letter: str) -> bool:
        return _font_of(letter) is not None


def _in_letters(text: str, known: Container[str]) -> str:
    return "".join(letter if letter.isspace() or letter in known else _code_point(letter) for letter in text)


def _tell_of_lacking(texts: Iterable[str]) -> None:
    """Once a process: hundreds of letters may lack."""
    lacking = "".join(sorted({c for text in texts for c in text if _visible(c) == c != " " and _font_of(c) is None}))
    if lacking and not _told:
        _told.append(lacking)
        code_points = shown("".join(map(_code_point, lacking)))
        warnings.warn(
            f"no font here has {shown(lacking)}: pictures show {code_points}. A font that has such letters, for "
            "example Noto in ~/.fonts, mends that",
            stacklevel=2,
        )


@cache
def _font_of(letter: str) -> str | None:
    """The font file that has a letter, ours first; None if there is none."""
    return next((file for file in _font_files() if letter in _letters(file)), None)


@cache
def _font_file(family: str) -> str:
    return str(font_manager.findfont(family))


@cache
def _font_files() -> tuple[str, ...]:
    others = (font.fname for font in font_manager.fontManager.ttflist if not font.name.startswith((_NO_FONT, "cm")))
    return tuple(dict.fromkeys([_font_file(FONT), *sorted(others)]))


@cache
def _letters(file: str) -> frozenset[str]:
    with contextlib.suppress(OSError, RuntimeError):  # a damaged font is none
        return frozenset(map(chr, FT2Font(file).get_charmap()))
    return frozenset()


@cache
def _pillow_font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)
