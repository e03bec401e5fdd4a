"""Work in processes of its own, a progress bar, and faults that stop nothing: for scripts that read files of others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from config.errors import UserError
from data.claims import BusyError

Item = TypeVar("Item")
Result = TypeVar("Result")
Function = Callable[[Item, Callable[[], None]], Result]
_SECONDS_BETWEEN_LINES = 30
_SECONDS_TO_END = 10


class WorkerDiedError(UserError):
    """A process ended in the middle of an item."""


def split_key(key: str, default: str, overrides: Sequence[str]) -> tuple[str, list[str]]:
    """The last value of `key=VALUE`, and the other overrides."""
    values = [default, *(text.removeprefix(f"{key}=") for text in overrides if text.startswith(f"{key}="))]
    return values[-1], [text for text in overrides if not text.startswith(f"{key}=")]


def split_workers(overrides: Sequence[str]) -> tuple[int, list[str]]:
    """Number of processes from `workers=N` (1 without it), and the other overrides."""
    value, others = split_key("workers", "1", overrides)
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"workers={value}: give a number of processes, at least 1")
    return int(value), others


def run_parallel(
    function: Function,
    items: Sequence[Item],
    workers: int,
    console: Console,
    *,
    name_of: Callable[[Item], object] = str,
    what: str = "recordings",
) -> list[Result | UserError]:
    """`function(item, on_frame)` for every item, in `workers` processes; it calls `on_frame` after each frame.

    Returns results, or the UserError that stands in for one, in the order of `items`: whatever an item raises, and the
    death of its process, is that item's, under `name_of(item)`, and the others go on. `function` must be picklable.
    """
    context = multiprocessing.get_context("spawn")
    frames_done = context.Value("q", 0)
    workers = min(workers, len(items))
    staff = _Staff(context, function, frames_done)
    threads = ThreadPoolExecutor(max(workers, 1))
    try:
        jobs = [threads.submit(staff.work, item, name_of) for item in items]
        _watch(jobs, frames_done, console, what)
        return [job.result() for job in jobs]
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        staff.dismiss()


def run_apart(function: Callable[[Item], Result], item: Item, name: object) -> Result:
    """`function(item)` in a forked process, whose death, under `name`, is a UserError like all that it raises."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, function, item))
    process.start()
    theirs.close()
    try:
        outcome = ours.recv()
    except EOFError:
        process.join()
        outcome = UserError(f"{name}: {_end_of(process.exitcode)}")
    except KeyboardInterrupt:
        process.join(_SECONDS_TO_END)  # it hears of Ctrl-C as well
        process.kill()
        raise
    process.join()
    if isinstance(outcome, _Unforeseen):
        raise UserError(f"{name}: {outcome}")
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def _answer(connection: Connection, function: Callable[[Item], Result], item: Item) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        outcome = _outcome(lambda each, _: function(each), item, lambda: None)
    except KeyboardInterrupt:
        sys.exit(130)
    connection.send(outcome)


def run_beside_others(
    function: Callable[..., Result],
    items: Sequence[Item],
    workers: int,
    console: Console,
    *,
    name_of: Callable[[Item], object] = str,
    what: str = "recordings",
) -> list[Result | UserError]:
    """As `run_parallel`. Items that other commands are at work on come last: `function(..., wait=True)` for those."""
    outcomes: list[Result | UserError] = run_parallel(function, items, workers, console, name_of=name_of, what=what)
    busy = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, BusyError)]
    if busy:
        for index in busy:
            print(f"note: {outcomes[index]}: waiting for its end", file=sys.stderr)
        waiting = partial(function, wait=True)
        again = run_parallel(waiting, [items[i] for i in busy], workers, console, name_of=name_of, what=what)
        for index, outcome in zip(busy, again, strict=True):
            outcomes[index] = outcome
    return outcomes


class _Staff:
    """A process for each thread that asks for work; a new one where the last has died."""

    def __init__(
        self, context: multiprocessing.context.SpawnContext, function: Function, frames_done: Synchronized
    ) -> None:
        self._context, self._function, self._frames_done = context, function, frames_done
        self._own = threading.local()
        self._all: list[multiprocessing.process.BaseProcess] = []

    def work(self, item: Item, name_of: Callable[[Item], object]) -> Result | UserError:
        if getattr(self._own, "process", None) is None:
            self._hire()
        process, connection = self._own.process, self._own.connection
        try:
            connection.send(item)
            outcome = connection.recv()
        except (EOFError, OSError):
            process.join()
            self._own.process = None
            return WorkerDiedError(f"{name_of(item)}: {_end_of(process.exitcode)}")
        return UserError(f"{name_of(item)}: {outcome}") if isinstance(outcome, _Unforeseen) else outcome

    def _hire(self) -> None:
        self._own.connection, theirs = self._context.Pipe()
        arguments = (theirs, self._function, self._frames_done)
        self._own.process = self._context.Process(target=_serve, args=arguments, daemon=True)
        self._own.process.start()
        self._all.append(self._own.process)
        theirs.close()  # so that the death of the process is the end of the pipe

    def dismiss(self) -> None:
        for process in self._all:
            process.terminate()
        for process in self._all:
            process.join()


class _Unforeseen(str):
    """An exception that no code foresaw, in words."""


def _end_of(exit_code: int | None) -> str:
    assert exit_code is not None, "it has been joined"
    if exit_code == -signal.SIGKILL:
        return "its process was killed from outside, most likely for want of memory: give fewer workers"
    if exit_code == -signal.SIGTERM:
        return "its process was told to stop from outside. The same command goes on from here"
    how = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
    return (
        f"its process crashed {how}, in a library that reads or writes files: the file may be damaged in a way that "
        "the library does not bear"
    )


def _serve(connection: Connection, function: Function, frames_done: Synchronized) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears of Ctrl-C as well, and ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def count_frame() -> None:
        with frames_done.get_lock():
            frames_done.value += 1

    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        connection.send(_outcome(function, item, count_frame))


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its workers to stop."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in workers only"
    parent.join()
    os._exit(1)


def _outcome(function: Function, item: Item, on_frame: Callable[[], None]) -> Result | UserError | _Unforeseen:
    try:
        return function(item, on_frame)
    except BusyError as error:
        return BusyError(str(error))
    except UserError as error:
        return UserError(str(error))  # without what it was raised from, which may not travel
    except MemoryError:
        return _Unforeseen("not enough memory: give fewer workers")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return _Unforeseen(f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})")


def _watch(jobs: Sequence[Future], frames_done: Synchronized, console: Console, what: str) -> None:
    """Show progress until all jobs are through: a bar on a terminal, else a line now and then."""
    columns = (what, BarColumn(), MofNCompleteColumn(), "{task.fields[frames]:,} frames", "{task.fields[rate]:,.0f}/s")
    start = time.monotonic()
    next_line = start + _SECONDS_BETWEEN_LINES
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("", total=len(jobs), frames=0, rate=0)
        pending = set(jobs)
        while pending:
            _, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            done, frames = len(jobs) - len(pending), frames_done.value
            rate = frames / (time.monotonic() - start)
            progress.update(task, completed=done, frames=frames, rate=rate)
            if not console.is_terminal and time.monotonic() > next_line:
                next_line += _SECONDS_BETWEEN_LINES
                console.print(f"{done} of {len(jobs)} {what}, {frames:,} frames, {rate:,.0f}/s")
