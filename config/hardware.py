"""Which device trains, and in which precision: pure decisions on `hardware.gpus` and `training.precision`."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Literal

from config.errors import UserError

SHORT_PRECISION = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true"}


@dataclass(frozen=True)
class Device:
    """Where a run computes. `indices` are GPU numbers, empty on the CPU; `notes` are lines for the start of the run."""

    accelerator: Literal["cpu", "gpu"]
    indices: tuple[int, ...]
    precision: str
    notes: tuple[str, ...]

    @property
    def world_size(self) -> int:
        return max(1, len(self.indices))


def decide_device(
    gpus: str | int | tuple[int, ...], precision: str | int | None, available: int, cores: int | None = None
) -> Device:
    """Turn `hardware.gpus` (auto, 0 = CPU, N = that many, [i, j] = these) and `training.precision` into a decision.

    `available` is the number of GPUs of this machine. Raises UserError when GPUs are asked for that are not there.
    """
    indices = _indices(gpus, available)
    accelerator: Literal["cpu", "gpu"] = "gpu" if indices else "cpu"
    chosen, precision_note = _precision(precision, accelerator)
    numbers = ", ".join(map(str, indices))
    where = f"GPU {numbers} of {available}" if indices else f"CPU, {cores or os.cpu_count()} cores"
    notes = [f"Device: {where}; precision {chosen}"]
    if gpus == 0 and available:
        notes.append(
            f"hardware.gpus=0 means no GPU, but this machine has {available}: hardware.gpus=[0] uses the first one"
        )
    if precision_note:
        notes.append(precision_note)
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


def _precision(precision: str | int | None, accelerator: str) -> tuple[str, str]:
    if precision is None:
        return ("16-mixed" if accelerator == "gpu" else "32-true"), ""
    wanted = SHORT_PRECISION.get(str(precision), str(precision))
    if accelerator == "cpu" and wanted == "16-mixed":  # float16 has no CPU kernels worth using
        return "bf16-mixed", (
            f"training.precision={precision} needs a GPU; the CPU takes bf16-mixed (training.precision=32 is exact)"
        )
    return wanted, ""
