"""How a process of train.py or validation.py begins: alone or with fellows, and where it computes."""

from __future__ import annotations

import contextlib
import logging
import signal
import warnings
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from config.hardware import Device, count_gpus, decide_device
from config.launch import read_launch
from config.schema import Config
from modules.run.meeting import join, refuse_shared, together
from modules.run.memory import keep_freed_memory
from modules.run.processes import end_with_parent, is_first_process, is_lightnings_child
from modules.run.requeue import own_agent


def prepare_process() -> None:
    """What holds for the whole process, before anything is computed."""
    if is_lightnings_child():
        end_with_parent()
    elif read_launch().launcher == "torchrun":
        end_with_parent(signal.SIGTERM)  # in order, with the others
    torch.backends.cudnn.allow_tf32 = (
        False  # what stays in float32, and training.precision=32, is float32 on a GPU, too
    )
    keep_freed_memory()
    warnings.formatwarning = _formatted(warnings.formatwarning)
    # Lightning's advertisements and notes on settings that are our own; its warnings stay
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # of somebody's login node; in a job, Launch.note says what is meant
    warnings.filterwarnings("ignore", message="The `srun` command is available on your system but is not used.*")
    # the documented commands ask for workers by the machine that they were written for
    warnings.filterwarnings("ignore", message=".*This DataLoader will create.*")
    warnings.filterwarnings("ignore", message=".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*overridden `on_before_batch_transfer` in `LightningModule`.*")
    warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode at the start of training.*")  # frozen ones
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers which may be a bottleneck.*")
    warnings.filterwarnings(
        "ignore", message=".*checkpoint that ended before the epoch ended.*"
    )  # the plan knows where


def _formatted(others: Callable[..., str]) -> Callable[..., str]:
    """A warning of ours is one line for a user; one of a library keeps its place in the code."""
    root = Path(__file__).resolve().parents[2]

    def formatted(message: Warning | str, category: type[Warning], filename: str, *place: Any, **more: Any) -> str:
        ours = Path(filename).is_relative_to(root) and ".venv" not in Path(filename).parts
        return f"Warning: {message}\n" if ours else others(message, category, filename, *place, **more)

    return formatted


@contextlib.contextmanager
def fellows_of(argv: list[str]) -> Generator[None]:
    """Meet the processes of the launch, and leave them in order."""
    launch = read_launch()
    say(*filter(None, [launch.note]))
    fellows = join(argv, own_agent())
    if fellows is None:
        yield
        return
    nodes = f"{launch.num_nodes} nodes ({', '.join(fellows.node_names)})" if launch.num_nodes > 1 else "one node"
    say(f"Processes: {launch.world_size} on {nodes}, started by {launch.launcher}")
    with fellows.members():
        yield


def device_of(config: Config) -> Device:
    """Where this process computes; GPUs are never shared."""
    launch = read_launch()
    decide = partial(decide_device, config.hardware.gpus, config.training.precision, _available_gpus(), launch=launch)
    device = together(decide)
    if device.accelerator == "gpu" and launch.has_launcher:
        own = device.indices[launch.local_rank % len(device.indices)]
        torch.cuda.set_device(own)  # else what asks for its number would take memory of the first one
        refuse_shared(str(torch.cuda.get_device_properties(own).uuid))
    return device


def _available_gpus() -> int:
    return min(count_gpus(), torch.cuda.device_count())  # the driver's may be more than torch can use


def say(*lines: str) -> None:
    """Print in the first process only."""
    if lines and is_first_process():
        print("\n".join(lines), flush=True)
