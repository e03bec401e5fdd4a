"""Claims: which process writes a result, on this and on other machines.

A claim is a file that only one process can create. Whether that process still lives is told by a lock (flock) on the
file within one machine, where it ends with the process however that ends; and by the file's time, which its process
renews every few seconds, for other machines, since many network file systems keep locks to one machine. The claim of a
process that has died is taken over by one other.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import mkstemp

from config.errors import UserError

_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_SECONDS_BETWEEN_TRIES = 0.2
_BEAT_S = 10  # between two signs of life
_SILENT_S = 90  # so long without one, and a process of another machine has died
_RECORD_BYTES = 512


class BusyError(UserError):
    """Another process writes the same."""


@contextmanager
def claimed(path: Path, result: Path, *, wait: bool) -> Generator[Claim]:
    """The claim file `path` belongs to this process. Its folder is made, and removed if it is empty at the end.

    While another process has it, raises BusyError, which names that and `result`; with `wait` it waits.
    """
    claim = _taken(path, result, wait=wait)
    done = threading.Event()
    signs = threading.Thread(target=_give_signs, args=(claim.descriptor, done), daemon=True)
    signs.start()
    try:
        yield claim
    finally:
        done.set()
        signs.join()
        with suppress(OSError):
            if claim.is_held():
                claim.path.unlink()
                path.parent.rmdir()
        claim.close()


def _give_signs(descriptor: int, done: threading.Event) -> None:
    while not done.wait(_BEAT_S):
        with suppress(OSError):
            os.utime(descriptor)


def _taken(path: Path, result: Path, *, wait: bool) -> Claim:
    while True:
        claim, is_new = _opened(path)
        if is_new:
            claim.take()
            return claim
        owner = claim.owner()
        try:
            if claim.is_alive(owner):
                if not wait and claim.is_at_its_place():
                    raise BusyError(f"{result} is being written by {owner or 'another process'}")
            elif claim.take_over(owner):
                return claim
        except FileNotFoundError:  # all of it, by the one before, who has just finished
            pass
        except BaseException:
            claim.close()
            raise
        claim.close()
        time.sleep(_SECONDS_BETWEEN_TRIES if wait else 0.01)


def _opened(path: Path) -> tuple[Claim, bool]:
    """The claim file, and whether it was created here."""
    for tries_left in reversed(range(100)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if claim := Claim.created(path):
                return claim, True
            return Claim(path, os.open(path, os.O_RDWR | os.O_NOFOLLOW)), False
        except FileNotFoundError:  # the one before has removed file or folder in between
            if not tries_left:
                raise
    raise AssertionError("the loop returns or raises")


@dataclass(frozen=True)
class _Owner:
    """Who wrote a claim."""

    process: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    kernel: str = field(default_factory=lambda: _kernel())  # machine, since it was started
    namespace: str = field(default_factory=lambda: _namespace())  # where the process has its number
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    @classmethod
    def of(cls, record: bytes) -> _Owner | None:
        """None for a claim that is just being written, or of another version."""
        with suppress(ValueError, TypeError):
            return cls(**json.loads(record))
        return None


def _kernel() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def _namespace() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


class Claim:
    """An opened claim file."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor
        self.own: _Owner | None = None

    @classmethod
    def created(cls, path: Path) -> Claim | None:
        """None where it is there already."""
        try:
            return cls(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
        except FileExistsError:
            return None

    def owner(self) -> _Owner | None:
        return _Owner.of(os.pread(self.descriptor, _RECORD_BYTES, 0))

    def is_locked_by_another(self) -> bool | None:
        """Also locks it, if it can. None where the file system has no locks."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                return None
            raise
        return False

    def is_alive(self, owner: _Owner | None) -> bool:
        """Whether the process that wrote it lives."""
        if owner is None or owner.kernel == _kernel():
            is_locked = self.is_locked_by_another()
            if is_locked or (is_locked is False and owner is not None):
                return is_locked
            if owner is not None and owner.namespace == _namespace() and not _is_process(owner.process):
                return False
        return self.silent_s(self.descriptor) < _SILENT_S

    def silent_s(self, descriptor: int) -> float:
        """Since a file's last sign of life, by the clock of the file system."""
        other, name = mkstemp(dir=self.path.parent)
        try:
            return os.fstat(other).st_mtime - os.fstat(descriptor).st_mtime
        finally:
            os.close(other)
            with suppress(FileNotFoundError):
                Path(name).unlink()

    def take(self) -> None:
        while self.is_locked_by_another():  # for a moment, by one that looks at it
            time.sleep(0.01)
        self._sign()

    def take_over(self, owner: _Owner | None) -> bool:
        """Of those who see that `owner` has died one succeeds: the one that makes the file of that name."""
        path = self.path.with_name(f"taken_{owner.token if owner else 'unknown'}")
        try:
            marker = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            self._remove_if_left(path)
            return False
        try:
            if self.owner() != owner or not self.is_at_its_place():
                return False
            self.is_locked_by_another()
            self._sign()
            return True
        finally:
            os.close(marker)
            path.unlink(missing_ok=True)

    def _sign(self) -> None:
        self.own = _Owner()
        os.pwrite(self.descriptor, json.dumps(asdict(self.own)).encode().ljust(_RECORD_BYTES), 0)

    def _remove_if_left(self, path: Path) -> None:
        """The mark of one that has died while taking over."""
        with suppress(FileNotFoundError):
            marker = os.open(path, os.O_RDONLY)
            try:
                if self.silent_s(marker) > _SILENT_S:
                    path.unlink()
            finally:
                os.close(marker)

    def is_at_its_place(self) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(self.path.stat(), os.fstat(self.descriptor))
        return False

    def is_held(self) -> bool:
        return self.own is not None and self.owner() == self.own and self.is_at_its_place()

    def close(self) -> None:
        os.close(self.descriptor)


def _is_process(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
