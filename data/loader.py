"""A loader's life: how its workers start, wait, die and end, and what to say when they do.

`StreamLoader` is PyTorch's DataLoader whose passes announce to a `LoaderWatch` when the main thread waits for them:
then nothing is half done, and it may wait for long, so that a stop or a worker's death may be raised there at once.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Generator, Iterator
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data._utils.signal_handling import _error_if_any_worker_fails

_MAIN_PROCESS_ONLY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_DEATH_IS_KNOWN_AFTER_S = 1.0
_DUMP_STACKS_S = 1.0
_started: dict[int | None, Any] = {}  # processes by pid


# --- the main process --------------------------------------------------------------------------------------------


class LoaderWatch:
    """Knows when the main thread waits for a loader, for how long it has, and what ended its last wait."""

    def __init__(self) -> None:
        self.is_waiting = False
        self.failure: Exception | None = None  # what ended the last wait that brought no batch
        self._is_starting = False
        self._child_ended = False
        self._waited_s = 0.0
        self._wait_began = 0.0

    def take_waited_s(self) -> float:
        """Return the seconds waited since the last call."""
        waited, self._waited_s = self._waited_s, 0.0
        return waited

    def child_ended(self) -> None:
        """To be called on SIGCHLD. PyTorch's own handler raises wherever the main thread happens to be, and without
        it the loader would find out only after hardware.loader_timeout_s.
        """
        self._child_ended = True
        if self.is_waiting or self._is_starting:
            self._raise_if_a_worker_died()

    @contextlib.contextmanager
    def starting(self) -> Generator[None]:
        """A pass begins: with persistent workers PyTorch waits for each of them."""
        self._is_starting = True
        try:
            yield
        finally:
            self._is_starting = False

    def begin_to_wait(self) -> None:
        """The main thread is about to wait for a batch; raises if a worker has died since the last one."""
        self._wait_began = time.perf_counter()
        self.is_waiting = True
        self._raise_if_a_worker_died()

    def end_of_wait(self, error: BaseException | None) -> None:
        """The wait is over, by a batch (None), the end of the pass (StopIteration) or a failure."""
        self.is_waiting = False
        self._waited_s += time.perf_counter() - self._wait_began
        if not isinstance(error, Exception) or isinstance(error, StopIteration):
            return
        self.failure = error
        if is_timeout(error):
            _dump_all_stacks()
        elif isinstance(error, EOFError | OSError):  # what a dead worker's batches give before its death is known
            time.sleep(_DEATH_IS_KNOWN_AFTER_S)
            self._raise_if_a_worker_died()

    def _raise_if_a_worker_died(self) -> None:
        if self._child_ended:
            self._child_ended = False
            try:
                _error_if_any_worker_fails()
            except RuntimeError as death:  # it names the worker and its signal
                self.failure = death
                raise


class StreamLoader(DataLoader):
    """A DataLoader that tells a watch when it is waited for.

    It notices before each pass that a worker has died since the last one, where PyTorch's would wait for it. The first
    batch raises that, not the beginning of the pass: Lightning's counters are then as between two steps, and the run
    can be saved.
    """

    def __init__(self, *args: Any, watch: LoaderWatch, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.watch = watch

    def __iter__(self) -> Any:  # PyTorch declares the class that it makes, not that it is an iterator
        try:
            with self.watch.starting():
                _error_if_any_worker_fails()
                with signals_held_back():
                    batches = super().__iter__()
        except RuntimeError as death:
            batches = _fail_at_first_batch(death)
        return _Pass(batches, self.watch)


class _Pass:
    """One pass over a loader."""

    def __init__(self, batches: Iterator[Any], watch: LoaderWatch) -> None:
        self._batches, self._watch = batches, watch

    def __iter__(self) -> _Pass:
        return self

    def __next__(self) -> Any:
        try:
            self._watch.begin_to_wait()
            batch = next(self._batches)
        except BaseException as error:
            self._watch.end_of_wait(error)
            raise
        self._watch.end_of_wait(None)
        return batch


def _fail_at_first_batch(error: Exception) -> Iterator[Any]:
    raise error
    yield  # what makes it an iterator


@contextlib.contextmanager
def signals_held_back() -> Generator[None]:
    """Start workers in here: a signal that comes before `prepare_worker` has run would end them with a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _MAIN_PROCESS_ONLY)
    try:
        yield
        _started.update((child.pid, child) for child in multiprocessing.active_children())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def kill_workers() -> None:
    """End what is left of the workers: they ignore the signals that stop a run, and a hanging one would never leave."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # these deaths are no failures
    for child in multiprocessing.active_children():
        child.kill()


# At exit Python sends its children SIGTERM, which they ignore, and waits for them; this comes first.
atexit.register(kill_workers)


# --- a worker ----------------------------------------------------------------------------------------------------


def prepare_worker(worker_id: int) -> None:
    """Leave stopping to the main process, and show the stack on SIGUSR2.

    A signal to the process group (Ctrl-C, `screen -X quit`, a batch system's end) reaches workers too; if they died
    of it, the main process could not finish its step and save.
    """
    for signum in _MAIN_PROCESS_ONLY:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _MAIN_PROCESS_ONLY)
    faulthandler.register(signal.SIGUSR2, file=sys.__stderr__ or 2, all_threads=True)
    sys.excepthook = _report_unless_the_main_process_hung_up


def _report_unless_the_main_process_hung_up(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """The thread that hands a batch's memory over prints what it meets, also when a stop cuts that short."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


# --- what to say of a failure ------------------------------------------------------------------------------------


def is_loader_failure(error: BaseException) -> bool:
    """A worker died or gave nothing for hardware.loader_timeout_s; PyTorch has no exception type for it."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader ")


def is_timeout(error: BaseException) -> bool:
    return is_loader_failure(error) and "timed out" in str(error)


def explain_loader_failure(error: BaseException) -> str:
    """Return what happened and the remedy."""
    if is_timeout(error):
        return (
            f"{error}: no worker gave a batch in time (hardware.loader_timeout_s). Their stacks stand above. A slow or "
            "hanging disk is the usual reason; a greater hardware.loader_timeout_s waits longer"
        )
    return (
        f"{_death(error)}. Workers are mostly killed because the machine ran out of memory: take fewer with "
        "hardware.num_workers.train and .eval, or a smaller batch_size"
    )


def _death(error: BaseException) -> str:
    """Which worker died of what. PyTorch leaves the signal out if it finds the death before the kernel tells of it."""
    cause = error.__cause__ if isinstance(error.__cause__, RuntimeError) else error
    if pids := re.search(r"\(pid\(s\) ([\d, ]+)\) exited unexpectedly", str(cause)):
        signals = {pid: _signal_that_killed(int(pid)) for pid in pids[1].split(", ")}
        if deaths := [f"(pid {pid}) is killed by signal: {signal.strsignal(by)}" for pid, by in signals.items() if by]:
            return f"DataLoader worker {', '.join(deaths)}"
    return str(cause).rstrip(". ")


def _dump_all_stacks() -> None:
    """Print where the main process and each worker are."""
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    for child in multiprocessing.active_children():
        print(f"--- worker {child.pid}", file=sys.stderr, flush=True)
        os.kill(child.pid or 0, signal.SIGUSR2)  # see prepare_worker
        time.sleep(_DUMP_STACKS_S)


def _signal_that_killed(pid: int) -> signal.Signals | None:
    """The signal that ended a worker; None if it ended otherwise, or runs."""
    worker = _started.get(pid)
    return signal.Signals(-worker.exitcode) if worker is not None and (worker.exitcode or 0) < 0 else None
