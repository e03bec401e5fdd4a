"""A file that another program is still writing, read as it grows: whole items only, and waiting for more of them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy import ndarray

from config.errors import UserError

GROWING_SUFFIXES = (".raw", ".dat")  # files that can be read from their start on before they are whole
_POLL_S = 0.002


class Growth:
    """Says when a growing file counts as whole: after `stop`, or where nothing came for `idle_s` seconds."""

    def __init__(self, idle_s: float = float("inf")) -> None:
        self._idle_s = idle_s
        self.is_stopped = False

    def stop(self) -> None:
        """From a signal's handler, too: it only sets a flag."""
        self.is_stopped = True

    def read(self, file: BinaryIO, dtype: np.dtype, count: int) -> ndarray:
        """Up to `count` items, at least one; none where the file counts as whole."""
        begin = file.tell()
        patience = time.monotonic() + self._idle_s
        while not self.is_stopped and time.monotonic() < patience:
            size = os.fstat(file.fileno()).st_size
            if size < begin:
                raise UserError(f"{file.name} became shorter while it was followed: it is written anew. Start again")
            if available := (size - begin) // dtype.itemsize:
                return np.fromfile(file, dtype, min(count, available))
            if not _is_still(file):
                raise UserError(
                    f"{file.name} was moved away, deleted or replaced while it was followed; what it held until then "
                    "is read. Start again with the file that is written now"
                )
            time.sleep(_POLL_S)
        return np.empty(0, dtype)

    def wait_for_header(self, path: Path) -> None:
        """Until the lines that begin with % are whole, and something follows them."""
        patience = time.monotonic() + self._idle_s
        while not self.is_stopped and time.monotonic() < patience and not _has_header(path):
            time.sleep(_POLL_S)


def _is_still(file: BinaryIO) -> bool:
    """Whether a file's name still stands for it."""
    try:
        return os.path.samestat(Path(file.name).stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _has_header(path: Path) -> bool:
    with path.open("rb") as file:
        while (line := file.readline(4096)).startswith(b"%"):
            if line.strip() == b"% end":
                return True
        return len(line) > 1


def read_items(file: BinaryIO, dtype: np.dtype, count: int, growth: Growth | None) -> ndarray:
    """Up to `count` of what follows in a file; none at its end."""
    return np.fromfile(file, dtype, count) if growth is None else growth.read(file, dtype, count)
