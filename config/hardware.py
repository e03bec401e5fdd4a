"""Which device trains, and in which precision: pure decisions on `hardware.gpus` and `training.precision`."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from config.errors import UserError
from config.launch import ALONE, Launch
from config.processor import BFLOAT16, CPUINFO, bfloat16_units

FULL_NAME = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true"}


@dataclass(frozen=True)
class Device:
    """Where a run computes.

    `indices` are numbers of GPUs of this node, a process each, empty on the CPU; one where each process of a launcher
    sees only its own. `notes` are lines for the start of the run.
    """

    accelerator: Literal["cpu", "gpu"]
    indices: tuple[int, ...]
    precision: str
    notes: tuple[str, ...]


def decide_device(
    gpus: str | int | tuple[int, ...],
    precision: str | int | None,
    available: int,
    cores: int | None = None,
    cpuinfo: Path = CPUINFO,
    launch: Launch = ALONE,
) -> Device:
    """Turn `hardware.gpus` (auto, 0 = CPU, N = that many, [i, j] = these) and `training.precision` into a decision.

    `available` is the number of GPUs of this machine. Raises UserError when GPUs are asked for that are not there, or
    when a launcher has started another number of processes.
    """
    indices = _of_launcher(gpus, available, launch) if launch.has_launcher else _indices(gpus, available)
    accelerator: Literal["cpu", "gpu"] = "gpu" if indices else "cpu"
    units = bfloat16_units(cpuinfo)
    chosen, why = _precision(precision, accelerator, units)
    numbers = ", ".join(map(str, indices))
    where = f"GPU {numbers} of {available}" if indices else f"CPU, {cores or os.cpu_count()} cores"
    notes = [f"Device: {where}; precision {chosen} ({why})"]
    if gpus == 0 and available:
        notes.append(
            f"hardware.gpus=0 means no GPU, but this machine has {available}: hardware.gpus=[0] uses the first one"
        )
    if accelerator == "cpu" and chosen == "bf16-mixed" and not units:
        lacks = "tells of no" if units is None else "has no"
        notes.append(
            f"Warning: this processor {lacks} bfloat16 in hardware ({', '.join(BFLOAT16)}): it is emulated, and a step "
            "took ten times as long as in float32 where it was measured. training.precision=32, or auto"
        )
    return Device(accelerator, indices, chosen, tuple(notes))


def count_gpus() -> int:
    """GPUs that CUDA would show, asked of the driver so that a config is checked without importing torch."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _indices(gpus: str | int | tuple[int, ...], available: int) -> tuple[int, ...]:
    there = f"this machine has {available or 'none'}" + (f": {list(range(available))}" if available else "")
    remedy = "hardware.gpus=0 trains on the CPU, hardware.gpus=auto on what there is"
    if gpus == "auto":
        return tuple(range(available))
    if isinstance(gpus, int):
        if gpus > available:
            raise UserError(f"hardware.gpus={gpus} asks for {gpus} GPUs, but {there}. {remedy}")
        return tuple(range(gpus))
    assert not isinstance(gpus, str), gpus
    indices = tuple(gpus)
    if len(set(indices)) < len(indices):
        raise UserError(f"hardware.gpus={list(indices)} names a GPU twice")
    absent = [index for index in indices if index >= available]
    if absent:
        raise UserError(f"hardware.gpus={list(indices)} names GPU {absent[0]}, but {there}. {remedy}")
    return indices


def _of_launcher(gpus: str | int | tuple[int, ...], available: int, launch: Launch) -> tuple[int, ...]:
    """A GPU for each process that the launcher has started on this node; `auto` follows it."""
    processes = launch.local_world_size
    if gpus == 0 or (gpus == "auto" and not available):
        return ()
    # srun --gpus-per-task=1 shows each task a GPU of its own as the only one
    one_each = launch.launcher == "srun" and available == 1 and processes > 1 and not isinstance(gpus, tuple)
    there = processes if one_each else available
    indices = tuple(range(processes)) if gpus == "auto" and processes <= there else _indices(gpus, there)
    if len(indices) != processes:
        began = f"{launch.launcher} has started {processes} on node {launch.node_rank}"
        told = (
            f"hardware.gpus={'auto' if gpus == 'auto' else gpus} takes {len(indices)} processes per node, but {began}"
        )
        raise UserError(f"{told}: {launch.command(len(indices))}, or hardware.gpus={min(processes, there)}")
    return (0,) if one_each else indices


def _precision(
    precision: str | int | None, accelerator: str, units: tuple[str, ...] | None
) -> tuple[Literal["16-mixed", "bf16-mixed", "32-true"], str]:
    """Lightning's name of the precision, and why it is that one."""
    if precision is None:
        return ("16-mixed" if accelerator == "gpu" else "32-true"), f"the default on a {accelerator.upper()}"
    if precision == "auto" and accelerator == "gpu":
        return "16-mixed", "auto: every GPU has hardware for it"
    if precision == "auto":
        return ("bf16-mixed", f"auto: there is {units[0]}") if units else ("32-true", "auto: no bfloat16 in hardware")
    if accelerator == "cpu" and str(precision) in ("16", "16-mixed"):  # float16 has no CPU kernels worth using
        return "bf16-mixed", f"training.precision={precision} needs a GPU; the CPU takes bf16-mixed, 32 is exact"
    return FULL_NAME.get(str(precision), str(precision)), "as asked for"  # type: ignore[bad-return]  # the schema's
