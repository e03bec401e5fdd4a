"""Loops that numba compiles on their first call, so that importing this project stays cheap."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import Any


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` in nopython mode on its first call; the machine code is cached on disk where that is possible.

    numba itself takes a second to import and a loop another to compile: a process that never calls one pays nothing.
    Compiled functions take positional arguments only and cannot call one another.
    """
    machine_code: Callable[..., Any] | None = None
    lock = Lock()  # or threads that call it first at the same time would each compile it

    @wraps(function)
    def call(*args: Any) -> Any:
        nonlocal machine_code
        if machine_code is None:
            with lock:
                if machine_code is None:  # what checks its annotations in tests cannot be compiled
                    machine_code = _compile(inspect.unwrap(function))
        return machine_code(*args)

    return call


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    import numba

    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither __pycache__ nor the user's cache folder can be written to
        return numba.njit(nogil=True)(function)
