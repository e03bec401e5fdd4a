"""What every loader worker sets up for itself."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import multiprocessing
import signal
import sys
from collections.abc import Iterator
from typing import Any

_MAIN_PROCESS_ONLY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_started: dict[int, multiprocessing.Process] = {}  # by pid


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Start workers in here: a signal that comes before `prepare_worker` has run would end them with a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _MAIN_PROCESS_ONLY)
    try:
        yield
        _started.update((child.pid, child) for child in multiprocessing.active_children())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def prepare_worker(worker_id: int) -> None:
    """Leave stopping to the main process, and show the stack on SIGUSR2.

    A signal to the process group (Ctrl-C, `screen -X quit`, a batch system's end) reaches workers too; if they died
    of it, the main process could not finish its step and save.
    """
    for signum in _MAIN_PROCESS_ONLY:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _MAIN_PROCESS_ONLY)
    faulthandler.register(signal.SIGUSR2, file=sys.__stderr__, all_threads=True)
    sys.excepthook = _tell_unless_the_main_process_hung_up


def _tell_unless_the_main_process_hung_up(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """The thread that hands a batch's memory over prints what it meets, also when a stop cuts that short."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def signal_that_killed(pid: int) -> signal.Signals | None:
    """The signal that ended a worker; None if it ended otherwise, or runs."""
    worker = _started.get(pid)
    return signal.Signals(-worker.exitcode) if worker is not None and (worker.exitcode or 0) < 0 else None


def kill_workers() -> None:
    """End what is left of the workers: they ignore the signals that stop a run, and a hanging one would never leave."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # these deaths are no failures
    for child in multiprocessing.active_children():
        child.kill()


# At exit Python sends its children SIGTERM, which they ignore, and waits for them; this comes first.
atexit.register(kill_workers)
