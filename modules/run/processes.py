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
from pytorch_lightning import Trainer

_PREFIX = "STREAMRVT_"
_PR_SET_PDEATHSIG = 1


def local_world_size() -> int:
    """Processes that `torchrun` has started on this machine for us; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def is_first_process() -> bool:
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) == 0


def is_lightnings_child() -> bool:
    """Whether Lightning has started this process, for the second GPU or a later one."""
    return "LOCAL_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ and not is_first_process()


def end_with_parent() -> None:
    """Have this process killed when the one that started it ends, however it ends (Linux).

    Otherwise it would wait half an hour for the others in NCCL, and keep its GPU from the next run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def leave_group(trainer: Trainer) -> None:
    """Forget the processes that Lightning has started: the next run of a sweep starts its own."""
    if not getattr(trainer.strategy.launcher, "procs", None):
        return
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)


def share(name: str, decide: Callable[[], Any]) -> Any:
    """Return what the first process decides, on all processes of the run. The decision must be plain JSON values.

    Processes that Lightning starts inherit it through the environment; those that torchrun starts ask its store.
    """
    key = _PREFIX + name
    if "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1:
        return _share_by_store(key, decide)
    if is_first_process():
        os.environ[key] = json.dumps(decide())
    return json.loads(os.environ[key])


def _share_by_store(key: str, decide: Callable[[], Any]) -> Any:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = torch.distributed.TCPStore(address, port, is_master=False)
    if is_first_process():
        store.set(key, json.dumps(decide()))
    return json.loads(store.get(key))


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
