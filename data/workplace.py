"""A place to write one result in, for one process at a time, on this and on other machines.

Several commands may write into one output folder, on one machine or on many that share a network disk. Each claims what
it writes (`data.claims`). So whatever lies in a place that was free, or whose process has died, is of nobody, and is
removed.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from config.errors import UserError
from data.claims import BusyError, claimed

_CLAIM = "lock"
_FULL = (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # numpy tells a short write without a number


@contextmanager
def workplace(folder: Path, result: Path, *, wait: bool = False) -> Generator[Path]:
    """An empty folder inside `folder`, which is there as long as it is used.

    While another process has it, raises BusyError, which names that and `result`; with `wait` it waits. Raises OSError
    where `folder` cannot be written.
    """
    with claimed(folder / _CLAIM, result, wait=wait) as claim:
        _remove_remains(folder)
        own = Path(mkdtemp(dir=folder))
        try:
            yield own
        except OSError as error:
            if claim.is_held():
                raise
            raise BusyError(f"{result} was taken over by another process, as this one stood still") from error
        finally:
            shutil.rmtree(own, ignore_errors=True)


def not_written(result: Path, error: OSError) -> UserError:
    """`error` of writing, in words; those of reading are UserErrors by then."""
    room, other = "Make room there: the same command goes on from here", "Give a folder that can be written"
    return UserError(f"{result} cannot be written: {error}. {room if error.errno in _FULL else other}")


def _remove_remains(folder: Path) -> None:
    """Each is moved away first: who works there after all fails, and what he has finished stays."""
    for remains in [path for path in folder.iterdir() if path.name != _CLAIM]:
        doomed = Path(mkdtemp(dir=folder))
        with suppress(FileNotFoundError):
            remains.rename(doomed / remains.name)
        shutil.rmtree(doomed, ignore_errors=True)
