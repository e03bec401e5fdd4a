"""Standard output and error of a run: a reader that has left, or a full disk under a log, ends no training."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO


def let_prints_fail() -> None:
    """From here on what cannot be printed is left out; the other stream says so once.

    Letters that the console's encoding lacks become code points.
    """
    streams = {"standard output": sys.stdout, "standard error": sys.stderr}
    for stream in streams.values():
        with contextlib.suppress(AttributeError, OSError):  # not every replacement can be told
            stream.reconfigure(errors="backslashreplace")  # type: ignore[missing-attribute]
    out, err = (_Patient(stream, name) for name, stream in streams.items())
    out.other, err.other = err, out
    sys.stdout, sys.stderr = out, err  # type: ignore[bad-assignment]


def open_missing_streams() -> None:
    """Give closed standard streams (`>&-`) a place: the next file opened would take their number, and their prints."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


class _Patient:
    """A stream whose writing may fail."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._told = False
        self.other: _Patient = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._leaving_out():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._leaving_out():
            self._stream.flush()

    @contextlib.contextmanager
    def _leaving_out(self) -> Any:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: it was closed
            if not self._told:
                self._told = True
                reason = getattr(error, "strerror", None) or error
                self.other.write(f"{self._name} cannot be written: {reason}. The run goes on without it\n")
                self.other.flush()
