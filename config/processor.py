"""What the processor computes bfloat16 with: read before torch is imported, from what the kernel tells."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")  # the last is ARM's


def processor_name(cpuinfo: Path = CPUINFO) -> str | None:
    """The model's name; None where it is not told, as on macOS."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def bfloat16_units(cpuinfo: Path = CPUINFO) -> tuple[str, ...] | None:
    """Instruction sets that multiply bfloat16; empty if there are none, None where the kernel does not tell."""
    if not cpuinfo.is_file():
        return None
    flags = set(cpuinfo.read_text().split())
    return tuple(name for name in BFLOAT16 if name in flags)
