"""How the C library keeps memory."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>


def keep_freed_memory() -> None:
    """Let glibc keep what a training step frees, for the next step.

    By default every large tensor is mapped anew and its pages are zeroed by the kernel at each step, which costs a
    third of a step on a CPU. Does nothing where there is no glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)  # never; the greatest number is 2 GB, less than steps free
