"""Several processes of one run: who is first, and how they come to the same decision before they are connected."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed

_PREFIX = "STREAMRVT_"


def local_world_size() -> int:
    """Processes that `torchrun` has started on this machine for us; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def is_first_process() -> bool:
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) == 0


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
    torch.distributed.all_gather_object(values, value)
    return values


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Give all processes the buffers of the first one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, src=0)
