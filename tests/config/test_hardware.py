"""Device and precision follow from two keys and the number of GPUs present."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.errors import UserError
from config.hardware import decide_device


@pytest.mark.parametrize(
    ("gpus", "available", "indices"),
    [
        (0, 0, ()),
        (0, 2, ()),
        (1, 2, (0,)),
        (2, 2, (0, 1)),
        ((1,), 2, (1,)),
        ((1, 0), 2, (1, 0)),
        ("auto", 0, ()),
        ("auto", 2, (0, 1)),
    ],
)
def test_devices(gpus: int | tuple[int, ...] | str, available: int, indices: tuple[int, ...]) -> None:
    device = decide_device(gpus, None, available)
    assert device.indices == indices
    assert device.accelerator == ("gpu" if indices else "cpu")


@pytest.mark.parametrize(
    ("gpus", "available", "message"),
    [
        (2, 1, r"asks for 2 GPUs, but this machine has 1: \[0\]"),
        (1, 0, "this machine has none. hardware.gpus=0"),
        ((0, 3), 2, r"names GPU 3, but this machine has 2: \[0, 1\]"),
        ((0, 0), 2, "names a GPU twice"),
    ],
)
def test_gpus_that_are_not_there(gpus: int | tuple[int, ...], available: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        decide_device(gpus, None, available)


def test_zero_gpus_beside_a_gpu_tells_the_remedy() -> None:
    notes = "\n".join(decide_device(0, None, 1, cores=12).notes)
    assert "CPU, 12 cores" in notes
    assert "hardware.gpus=[0]" in notes
    assert "hardware.gpus=[0]" not in "\n".join(decide_device(0, None, 0).notes)


PROCESSORS = {
    "avx512_bf16": "model name : one\nflags : fpu avx512f avx512_bf16 amx_bf16\n",
    "arm": "Features : fp asimd bf16\n",
    "avx2": "model name : two\nflags : fpu sse2 avx2 avx512f\n",
}


def cpuinfo(folder: Path, processor: str) -> Path:
    path = folder / "cpuinfo"
    if processor in PROCESSORS:
        path.write_text(PROCESSORS[processor])
    return path


@pytest.mark.parametrize(
    ("precision", "on_gpu", "with_bfloat16", "without"),
    [
        (None, "16-mixed", "32-true", "32-true"),
        (16, "16-mixed", "bf16-mixed", "bf16-mixed"),
        ("16-mixed", "16-mixed", "bf16-mixed", "bf16-mixed"),
        ("bf16", "bf16-mixed", "bf16-mixed", "bf16-mixed"),
        (32, "32-true", "32-true", "32-true"),
        ("auto", "16-mixed", "bf16-mixed", "32-true"),
    ],
)
def test_precision(precision: int | str | None, on_gpu: str, with_bfloat16: str, without: str, tmp_path: Path) -> None:
    assert decide_device(1, precision, 1, cpuinfo=cpuinfo(tmp_path, "avx2")).precision == on_gpu
    for processor in ("avx512_bf16", "arm"):
        device = decide_device(0, precision, 1, cpuinfo=cpuinfo(tmp_path, processor))
        assert device.precision == with_bfloat16
        assert "emulated" not in "\n".join(device.notes)
    device = decide_device(0, precision, 1, cpuinfo=cpuinfo(tmp_path, "avx2"))
    assert device.precision == without
    assert ("Warning: this processor has no bfloat16 in hardware" in device.notes[-1]) == (without == "bf16-mixed")


def test_the_first_line_says_precision_and_why(tmp_path: Path) -> None:
    def said(precision: str | int | None, processor: str) -> str:
        return decide_device(0, precision, 0, cpuinfo=cpuinfo(tmp_path, processor)).notes[0]

    assert "32-true (the default on a CPU)" in said(None, "avx2")
    assert "bf16-mixed (auto: there is amx_bf16)" in said("auto", "avx512_bf16")
    assert "32-true (auto: no bfloat16 in hardware)" in said("auto", "avx2")
    assert "bf16-mixed (training.precision=16 needs a GPU" in said(16, "arm")


def test_a_kernel_that_does_not_tell_gets_float32(tmp_path: Path) -> None:
    assert decide_device(0, "auto", 0, cpuinfo=tmp_path / "absent").precision == "32-true"
    assert "tells of no bfloat16" in decide_device(0, "bf16", 0, cpuinfo=tmp_path / "absent").notes[-1]


@pytest.mark.parametrize(
    ("limit", "amx", "avx512"),
    [
        ("avx2", "32-true", "32-true"),
        ("AVX512_CORE", "32-true", "32-true"),
        ("AVX512_CORE_BF16", "32-true", "bf16-mixed"),
        ("ALL", "bf16-mixed", "bf16-mixed"),
    ],
)
def test_instructions_that_a_variable_forbids_are_not_there(
    limit: str, amx: str, avx512: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the processor that a user has a machine stand in for."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    for unit, precision in (("amx_bf16", amx), ("avx512_bf16", avx512)):
        (tmp_path / "cpuinfo").write_text(f"flags : fpu {unit}\n")
        assert decide_device(0, "auto", 0, cpuinfo=tmp_path / "cpuinfo").precision == precision
