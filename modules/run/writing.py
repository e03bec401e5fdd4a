"""Small files of a run: written whole or not at all, and what may fail without ending a training."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn


@contextlib.contextmanager
def warn_if_not_written(what: object) -> Generator[None]:
    """Turn an OSError (a full disk, a folder that became read-only) into a warning; the same one is shown once."""
    try:
        yield
    except OSError as error:
        rank_zero_warn(f"{what} CANNOT BE WRITTEN: {os.strerror(error.errno or 0)}. Training goes on.")


def append_line(path: Path, line: str) -> None:
    """Add a line to a record of faults."""
    with warn_if_not_written(path), path.open("a") as file:
        file.write(line + "\n")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=2))
    temporary.replace(path)
