"""Which device trains, and in which precision: pure decisions on `hardware.gpus` and `training.precision`."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from config.errors import UserError
from config.processor import BFLOAT16, CPUINFO, bfloat16_units

FULL_NAME = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true"}


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
    gpus: str | int | tuple[int, ...],
    precision: str | int | None,
    available: int,
    cores: int | None = None,
    cpuinfo: Path = CPUINFO,
) -> Device:
    """Turn `hardware.gpus` (auto, 0 = CPU, N = that many, [i, j] = these) and `training.precision` into a decision.

    `available` is the number of GPUs of this machine. Raises UserError when GPUs are asked for that are not there.
    """
    indices = _indices(gpus, available)
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
