"""Python's own part of a program's start and end, which a million objects of torch and Lightning make long."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Generator


@contextlib.contextmanager
def quick_imports() -> Generator[None]:
    """Import torch and Lightning in here: a fifth of their time goes into collecting garbage that is none.

    What they leave stays until the end of the process: no later collection looks at it, and no worker copies a page of
    it for having looked. Once only: a sweep's later members would keep what the earlier ones left.
    """
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:
            gc.freeze()
        gc.enable()


@contextlib.contextmanager
def quick_exit() -> Generator[None]:
    """Run the whole program in here: when threads and exit handlers have ended, so does the process.

    Python would take a second and more to free each object by itself. What has registered its exit handler before is
    not asked: open this first. After an exception Python ends as usual.
    """
    exit_code: list[int] = []

    def end() -> None:
        gc.unfreeze()  # or triton's bindings would name what they believe to be leaks
        with contextlib.suppress(OSError, ValueError):  # a full disk, a closed pipe: Python's end tells of it
            sys.stdout.flush()
            sys.stderr.flush()
            if exit_code:
                os._exit(exit_code[0])

    atexit.register(end)
    try:
        yield
        exit_code.append(0)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            exit_code.append((error.code or 0) & 0xFF)
        raise
