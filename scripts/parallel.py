"""One process per piece of work, a progress bar, and faults that stop nothing: for scripts over many sequences."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized
from threading import Thread
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from config.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
_SECONDS_BETWEEN_LINES = 30
_frames_done: Synchronized  # a worker's view of the count that all share


def split_workers(overrides: Sequence[str]) -> tuple[int, list[str]]:
    """Number of processes from `workers=N` (1 without it), and the other overrides."""
    values = ["1", *(text.removeprefix("workers=") for text in overrides if text.startswith("workers="))]
    if not values[-1].isdigit() or int(values[-1]) < 1:
        raise UserError(f"workers={values[-1]}: give a number of processes, at least 1")
    return int(values[-1]), [text for text in overrides if not text.startswith("workers=")]


def run_parallel(
    function: Callable[[Item, Callable[[], None]], Result], items: Sequence[Item], workers: int, console: Console
) -> list[Result | UserError]:
    """`function(item, on_frame)` for every item, in processes of their own; it calls `on_frame` after each frame.

    Returns results, or the UserError that stands in for one, in the order of `items`. `function` must be picklable.
    """
    context = multiprocessing.get_context("spawn")
    frames_done = context.Value("q", 0)
    pool = ProcessPoolExecutor(min(workers, len(items)), context, _start_worker, (frames_done,))
    try:
        jobs = [pool.submit(_run, function, item) for item in items]
        _watch(jobs, frames_done, console)
        return [job.result() for job in jobs]
    except BrokenProcessPool as error:
        raise UserError("a worker was killed, most likely for want of memory: give fewer workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(frames_done: Synchronized) -> None:
    global _frames_done
    _frames_done = frames_done
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its workers to stop."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _run(function: Callable[[Item, Callable[[], None]], Result], item: Item) -> Result | UserError:
    def count_frame() -> None:
        with _frames_done.get_lock():
            _frames_done.value += 1

    try:
        return function(item, count_frame)
    except UserError as error:
        return error


def _watch(jobs: Sequence[Future], frames_done: Synchronized, console: Console) -> None:
    """Show progress until all jobs are through: a bar on a terminal, else a line now and then."""
    columns = ("recordings", BarColumn(), MofNCompleteColumn(), "{task.fields[frames]:,} frames")
    next_line = time.monotonic() + _SECONDS_BETWEEN_LINES
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("", total=len(jobs), frames=0)
        pending = set(jobs)
        while pending:
            _, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            progress.update(task, completed=len(jobs) - len(pending), frames=frames_done.value)
            if not console.is_terminal and time.monotonic() > next_line:
                next_line += _SECONDS_BETWEEN_LINES
                console.print(f"{len(jobs) - len(pending)} of {len(jobs)} recordings, {frames_done.value:,} frames")
