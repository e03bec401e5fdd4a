"""A place to write one result in, for one process at a time, on this and on other machines.

Several commands may write into one output folder. Each takes what it writes for itself by a lock of the file system
(flock), which ends with its process however that ends. So whatever lies in a place whose lock is free was left behind
by a process that died, and is removed. NFS (from version 3 on Linux), Lustre (`flock`) and GPFS have locks that hold
between machines. Where a file system has none, or only those within a machine, both write, each in a folder of its
own, and the later result takes the place of the equal one before it, or is refused.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from config.errors import UserError

_LOCK = "lock"
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_SECONDS_BETWEEN_TRIES = 0.2


class BusyError(UserError):
    """Another process writes the same."""


@contextmanager
def workplace(folder: Path, result: Path, *, wait: bool = False) -> Generator[Path]:
    """An empty folder inside `folder`, which is there as long as it is used.

    While another process has it, raises BusyError, which names that and `result`; with `wait` it waits. Raises OSError
    where `folder` cannot be written.
    """
    with _lock(folder, result, wait=wait) as is_locked:
        if is_locked:
            _remove_remains(folder)
        own = Path(mkdtemp(dir=folder))
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)


@contextmanager
def _lock(folder: Path, result: Path, *, wait: bool) -> Generator[bool]:
    """False where the file system has no locks."""
    path = folder / _LOCK
    descriptor, is_locked = _open_locked(path, result, wait=wait)
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield is_locked
    finally:
        with suppress(OSError):
            path.unlink()
            folder.rmdir()
        os.close(descriptor)


def _open_locked(path: Path, result: Path, *, wait: bool) -> tuple[int, bool]:
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                return descriptor, True
        except BlockingIOError as error:
            if not wait:
                who = os.read(descriptor, 1000).decode(errors="replace").strip() or "another process"
                os.close(descriptor)
                raise BusyError(f"{result} is being written by {who}") from error
            time.sleep(_SECONDS_BETWEEN_TRIES)
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                return descriptor, False
            os.close(descriptor)
            raise
        os.close(descriptor)  # the one before has just removed it, or still has it


def _open(path: Path) -> int:
    for tries_left in reversed(range(100)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # the one before has removed the folder between the two
            if not tries_left:
                raise
    raise AssertionError("the loop returns or raises")


def _is_at(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False


def _remove_remains(folder: Path) -> None:
    """Each is moved away first: where the lock does not hold, who works there fails and what he has finished stays."""
    for remains in [path for path in folder.iterdir() if path.name != _LOCK]:
        doomed = Path(mkdtemp(dir=folder))
        with suppress(FileNotFoundError):
            remains.rename(doomed / remains.name)
        shutil.rmtree(doomed, ignore_errors=True)
