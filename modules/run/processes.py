"""Several processes of one run: who is first, how they decide and speak together, and that none outlives the first."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed

from config.hardware import Device
from config.launch import read_launch
from modules.run.meeting import company

_PREFIX = "STREAMRVT_"
_PR_SET_PDEATHSIG = 1


def is_first_process() -> bool:
    return read_launch().rank == 0


def is_lightnings_child() -> bool:
    """Whether Lightning has started this process, for the second GPU or a later one."""
    return not read_launch().has_launcher and not is_first_process()


def world_size(device: Device) -> int:
    """Processes of a run."""
    launch = read_launch()
    return launch.world_size if launch.has_launcher else len(device.indices) or launch.local_world_size


def end_with_parent(signum: int = signal.SIGKILL) -> None:
    """Have this process signalled when the one that started it ends, however it ends (Linux).

    Otherwise it would wait half an hour for the others in NCCL, and keep its GPU from the next run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)


def leave_group(launcher: Any) -> None:
    """Forget the processes that Lightning has started: the next run of a sweep starts its own."""
    if not getattr(launcher, "procs", None):
        return
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)


def share(name: str, decide: Callable[[], Any]) -> Any:
    """Return what the first process decides, on all processes of the run. The decision must be plain JSON values.

    Processes that Lightning starts inherit it through the environment; those of a launcher ask its store.
    """
    fellows = company()
    if fellows is not None:
        return fellows.tell(decide)
    key = _PREFIX + name
    if is_first_process():
        os.environ[key] = json.dumps(decide())
    return json.loads(os.environ[key])


def gather_objects(value: Any) -> list[Any]:
    """Return every process's value, in the order of ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    # through the host's memory: NCCL would put the predictions of a whole split on every GPU
    group: Any = torch.distributed.new_group(backend="gloo")
    torch.distributed.all_gather_object(values, value, group=group)
    torch.distributed.destroy_process_group(group)
    return values


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Give all processes the buffers of the first one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, src=0)
