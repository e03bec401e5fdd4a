"""Base class and shared types of the configuration tree."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic_core import PydanticCustomError

RVT_UNIT_PX = 32  # RVT sizes its input and its attention windows in units of this

Probability = Annotated[float, Field(ge=0, le=1)]
# Beyond these a number is a slip: what it asks for would take all memory, or never end.
Duration = Annotated[int, Field(gt=0, le=10**12)]  # in steps or epochs
Size = Annotated[int, Field(gt=0, le=2**16)]  # channels, lanes, frames, pixels
NumWorkers = Annotated[int, Field(ge=0, le=1024)]
Size2d = tuple[Size, Size]  # height, width
# The shell leaves the ~ of `dataset.path=~/x` to us. What is written down holds in every folder.
UserPath = Annotated[Path, AfterValidator(Path.expanduser), PlainSerializer(os.path.abspath, when_used="json")]


def _import_path(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", value):
        raise PydanticCustomError("import_path", "module:Name, a class of your own (docs/extending.md)")
    return value


ImportPath = Annotated[str, AfterValidator(_import_path)]


def breaks_lines(text: str) -> str | None:
    """The first character of a text that files of lines and tables cannot hold, as U+000A; None if there is none."""
    kinds = ("Cc", "Zl", "Zp", "Cs")  # control, line and paragraph separator, bytes that are no UTF-8
    return next((f"U+{ord(letter):04X}" for letter in text if unicodedata.category(letter) in kinds), None)


def printable(text: str) -> str:
    """Text of a file on a terminal: line breaks, control characters and terminal codes are spelled out."""
    return "".join(ascii(letter)[1:-1] if breaks_lines(letter) else letter for letter in text)


def _one_line(value: str) -> str:
    if found := breaks_lines(value):
        raise PydanticCustomError("one_line", "text of one line without control characters; it has {it}", {"it": found})
    return value


def _folder_name(value: str) -> str:
    if not re.fullmatch(r"[^/\\#?%:]{1,128}", value) or not value.strip(". "):
        text = "a name of 1 to 128 characters without / \\ # ? % :, and not of dots alone"
        raise PydanticCustomError("folder_name", text)
    return value


Line = Annotated[str, AfterValidator(_one_line)]
FolderName = Annotated[str, AfterValidator(_one_line), AfterValidator(_folder_name)]


def listed(value: object) -> object:
    """One name is a list of one, null is none."""
    if isinstance(value, str | None):
        return () if value is None else (value,)
    return tuple(value) if isinstance(value, list) else value


class Strict(BaseModel):
    """Base of every section: unknown keys are errors, values cannot be written back."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
