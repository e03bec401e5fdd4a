"""What to say, and to look at, when the loader's workers die or hang."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import re
import signal
import sys
import time

from data.workers import signal_that_killed

_DUMP_STACKS_S = 1.0


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
        signals = {pid: signal_that_killed(int(pid)) for pid in pids[1].split(", ")}
        if deaths := [f"(pid {pid}) is killed by signal: {signal.strsignal(by)}" for pid, by in signals.items() if by]:
            return f"DataLoader worker {', '.join(deaths)}"
    return str(cause).rstrip(". ")


def dump_all_stacks() -> None:
    """Print where the main process and each worker are."""
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    for child in multiprocessing.active_children():
        print(f"--- worker {child.pid}", file=sys.stderr, flush=True)
        os.kill(child.pid, signal.SIGUSR2)  # see data/workers.py
        time.sleep(_DUMP_STACKS_S)
