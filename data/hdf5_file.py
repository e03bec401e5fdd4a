"""Writing HDF5 files so that a full disk is an error.

libhdf5 cannot take back what it failed to write: after one failing write it crashes the process at the latest when the
file is closed. So its writes go through a file of ours that remembers the failure instead, and raises it in Python.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import h5py

Writer = TypeVar("Writer", bound="Hdf5Writer")


class Hdf5Writer:
    """A context manager around `file`, new with mode "w", an existing one with "r+".

    Raises OSError for what the disk refused: in `check`, which belongs into every longer loop, or at the end.
    """

    def __init__(self, path: Path, mode: str = "w") -> None:
        self._sink = _Sink(path, mode)
        self.file = h5py.File(self._sink, mode)

    def check(self) -> None:
        if self._sink.error is not None:
            raise self._sink.error

    @property
    def attributes(self) -> h5py.AttributeManager:
        return self.file.attrs

    def __enter__(self: Writer) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if error is None or not isinstance(error, OSError):  # whatever it is, it may come of what was not written
            self.check()

    def close(self) -> None:
        """Whoever calls it asks `check` afterwards."""
        try:
            self.file.close()
        except (OSError, RuntimeError):
            if self._sink.error is None:
                raise
        finally:
            self._sink.finish()


class _Sink(io.RawIOBase):
    """A file whose writes never fail; `error` is the first that should have."""

    error: OSError | None = None

    def __init__(self, path: Path, mode: str) -> None:
        self._path = path
        self._file: Any = path.open({"w": "w+b", "r+": "r+b"}[mode], buffering=0)

    def write(self, b: Any, /) -> int:
        view = memoryview(b).cast("B")
        with self._remembered():
            done = 0
            while done < len(view):
                done += self._file.write(view[done:])
        return len(view)

    def readinto(self, buffer: Any, /) -> int:
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view) and (count := self._file.readinto(view[done:])):
            done += count
        view[done:] = bytes(len(view) - done)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        with self._remembered():
            self._file.truncate(size)
        return size or 0

    def flush(self) -> None:
        """Nothing is kept back."""

    def finish(self) -> None:
        """Network file systems tell of a full disk no earlier than here."""
        with self._remembered():
            os.fsync(self._file.fileno())
        with self._remembered():
            self._file.close()

    @contextlib.contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self.error is None:
                self.error = OSError(error.errno, error.strerror, str(self._path))
