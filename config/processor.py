"""What bfloat16 is computed with: read before torch is imported, from what the kernel tells and variables allow."""

from __future__ import annotations

import os
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")  # the last is ARM's
# oneDNN, which multiplies bfloat16 for PyTorch, uses no newer instructions than these variables allow
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_OLDER = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
WITHOUT = {
    "amx_bf16": {*_OLDER, "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512"},
    "avx512_bf16": {*_OLDER},
}


def processor_name(cpuinfo: Path = CPUINFO) -> str | None:
    """The model's name; None where it is not told, as on macOS."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def has_bfloat16(device: str) -> bool:
    """Whether a device (cuda, cpu) is known to multiply bfloat16 in hardware. Emulated, a step takes minutes."""
    return device == "cuda" or bool(bfloat16_units())


def bfloat16_units(cpuinfo: Path = CPUINFO) -> tuple[str, ...] | None:
    """Instruction sets that multiply bfloat16; empty if there are none, None where the kernel does not tell."""
    if not cpuinfo.is_file():
        return None
    flags = set(cpuinfo.read_text().split())
    limit = next((os.environ[name].upper() for name in LIMITS if name in os.environ), "")
    return tuple(name for name in BFLOAT16 if name in flags and limit not in WITHOUT.get(name, ()))
