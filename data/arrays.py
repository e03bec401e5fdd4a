"""Arrays of .npy and .npz files: what their headers claim is compared with the file before it is believed.

numpy raises whatever its parsers meet over a damaged header (tokenizer errors, NotImplementedError, MemoryError, ...);
here all of it is one UserError with the file's path.
"""

from __future__ import annotations

import contextlib
import io
import threading
import zipfile
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from numpy.lib import format as npy_format

from config.errors import UserError

_LARGEST_TOLD = 200  # characters of another library's words
_ALWAYS_READ = 2**26  # bytes; of more, a file that is compressed may hold
_LARGEST_RATIO = 50  # times its own size
_LARGEST_WHOLE = 2.0**62
# numpy reads a header with Python's parser, whose depth CPython 3.11 counts once for all threads: now and then two that
# parse at once fail over a sound file ("AST constructor recursion depth mismatch").
_PARSER = threading.Lock()


@contextlib.contextmanager
def reading(path: Path, remedy: str) -> Generator[None]:
    """Whatever is raised over the file's content becomes a UserError of one line."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError("no file but a folder, pipe or device")
        yield
    except UserError:
        raise
    except Exception as error:
        told = " ".join(str(error).split())[:_LARGEST_TOLD] or type(error).__name__
        raise UserError(f"{path} is missing or damaged ({told}). {remedy}") from error


def read_npy(path: Path, remedy: str) -> ndarray:
    """The array in a .npy file."""
    with reading(path, remedy), path.open("rb") as file, _PARSER:
        return _array(file, path.stat().st_size)


def read_npz(path: Path, names: Sequence[str], remedy: str) -> list[ndarray]:
    """Those arrays of a .npz file, whose checksums are looked at."""
    with reading(path, remedy), zipfile.ZipFile(path) as archive:
        arrays = []
        for name in names:
            member = archive.getinfo(f"{name}.npy")
            if member.file_size > max(_ALWAYS_READ, _LARGEST_RATIO * path.stat().st_size):
                raise ValueError(f"{name} claims {member.file_size:,} bytes")
            content = archive.read(member)
            with _PARSER:
                arrays.append(_array(io.BytesIO(content), len(content)))
        return arrays


def _array(file: io.BufferedIOBase, num_bytes: int) -> ndarray:
    version = npy_format.read_magic(file)
    readers = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of .npy")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed != num_bytes - file.tell():
        raise ValueError(f"{dtype} {shape} are {claimed:,} bytes, but {num_bytes - file.tell():,} follow the header")
    file.seek(0)
    return npy_format.read_array(file, allow_pickle=False)


def whole_numbers(values: ndarray, what: str) -> Int64[ndarray, " n"]:
    """A one-dimensional array of whole numbers of whatever type. Raises ValueError where it is something else."""
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise ValueError(f"{what} are {values.dtype} {values.shape}, not a list of whole numbers")
    if values.dtype.kind != "i":
        wrong = np.flatnonzero(~(np.abs(values) < _LARGEST_WHOLE) | (values != np.floor(values)))  # NaN, too
        if len(wrong):
            raise ValueError(f"{what}: {values[wrong[0]]} at row {wrong[0]} is not a whole number")
    return values.astype(np.int64)
