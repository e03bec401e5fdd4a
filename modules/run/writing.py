"""Small files of a run: written whole or not at all, and what may fail without ending a training."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_only

_told: dict[Any, Any] = {}


@contextlib.contextmanager
def goes_on_without(what: object, instead: str = "") -> Generator[None]:
    """Whatever fails in here, a picture, a logger, a report, costs the run one line; the same one is shown once.

    Also a decorator. `instead`: where what is lost can be found.
    """
    try:
        yield
    except OSError as error:  # a full disk, a folder that became read-only
        _tell(f"{what} CANNOT BE WRITTEN: {error.strerror or error}", instead)
    except Exception as error:  # whatever it is, training is worth more
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(str(error).split())[:200]
        _tell(f"{what}: {type(error).__name__}: {reason} ({Path(place.filename).name}, line {place.lineno})", instead)


@rank_zero_only
def _tell(failure: str, instead: str) -> None:
    """A warning: under pytest an error (pyproject.toml). Without a place in the code, which would be a second line."""
    message = f"{failure}. The run goes on{instead and '; ' + instead}."
    warnings.warn_explicit(message, UserWarning, Path(sys.argv[0]).name or "python", 0, registry=_told)


def append_line(path: Path, line: str) -> None:
    """Add a line to a record of faults."""
    with goes_on_without(path), path.open("a") as file:
        file.write(line + "\n")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=2))
    temporary.replace(path)
