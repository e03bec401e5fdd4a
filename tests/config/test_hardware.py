"""Device and precision follow from two keys and the number of GPUs present."""

from __future__ import annotations

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
    assert device.world_size == max(1, len(indices))


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


@pytest.mark.parametrize(
    ("precision", "on_gpu", "on_cpu"),
    [
        (None, "16-mixed", "32-true"),
        (16, "16-mixed", "bf16-mixed"),
        ("16-mixed", "16-mixed", "bf16-mixed"),
        ("bf16", "bf16-mixed", "bf16-mixed"),
        (32, "32-true", "32-true"),
    ],
)
def test_precision(precision: int | str | None, on_gpu: str, on_cpu: str) -> None:
    assert decide_device(1, precision, 1).precision == on_gpu
    assert decide_device(0, precision, 1).precision == on_cpu


def test_replaced_precision_is_said() -> None:
    assert "needs a GPU; the CPU takes bf16-mixed" in decide_device(0, 16, 0).notes[-1]
