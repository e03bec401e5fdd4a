"""A place to write one result in, for one process at a time, on this and on other machines.

Several commands may write into one output folder, on one machine or on many that share a network disk. Each claims what
it writes (`data.claims`). So whatever lies in a place that was free, or whose process has died, is of nobody, and is
removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from data.claims import BusyError, claimed

_CLAIM = "lock"


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


def _remove_remains(folder: Path) -> None:
    """Each is moved away first: who works there after all fails, and what he has finished stays."""
    for remains in [path for path in folder.iterdir() if path.name != _CLAIM]:
        doomed = Path(mkdtemp(dir=folder))
        with suppress(FileNotFoundError):
            remains.rename(doomed / remains.name)
        shutil.rmtree(doomed, ignore_errors=True)
