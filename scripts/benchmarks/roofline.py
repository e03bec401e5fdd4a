"""How near a training step comes to the rate at which the processor multiplies matrices: what is left to be won."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, replace

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from modules.reports.tables import Table
from scripts.benchmarks.network import Case, Steps, Way

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "conv2d", "scaled_dot_product", "matmul", "linear")
SQUARE = 1024  # side of the matrices whose product gives the peak
REPEATS = 40


@dataclass(frozen=True)
class Roofline:
    """Of one training step. Seconds are the CPU's, of all operators' own time."""

    flop: float  # of matrix products and convolutions
    peak: float  # FLOP/s of large matrix products, measured beside it
    seconds: float
    seconds_of_products: float
    slowest: list[tuple[str, float]]  # operators and their seconds, largest first

    @property
    def least_seconds(self) -> float:
        """If nothing but products took time, and all of them ran at the peak."""
        return self.flop / self.peak


def roofline(case: Case, way: Way) -> Roofline:
    """Everything in this process: peak, step, peak again; the better peak counts, and the quicker of two steps."""
    # Convolutions and PyTorch's fused attention hide products from the counter, whose numbers are the same.
    plain = Steps(case, replace(way, other_kernels=(("linear", "product"), ("attention", "products"))))
    with FlopCounterMode(display=False) as counter:
        plain.train()
    del plain
    dtype = torch.bfloat16 if way.bfloat16 else torch.float32
    steps = Steps(case, way)
    steps.train()
    before = peak_rate(dtype, case.device)
    seconds = min((_operators(steps) for _ in range(2)), key=lambda by_name: sum(by_name.values()))
    peak = max(before, peak_rate(dtype, case.device))
    products = sum(value for name, value in seconds.items() if any(part in name for part in PRODUCTS))
    slowest = sorted(seconds.items(), key=lambda item: -item[1])
    return Roofline(counter.get_total_flops(), peak, sum(seconds.values()), products, slowest)


def peak_rate(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of the product of two large square matrices, the best of some."""
    a, b = torch.randn(2, SQUARE, SQUARE, device=device).to(dtype)
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * SQUARE**3 / best


def markdown(name: str, result: Roofline) -> str:
    """A few lines that say it, and the operators that take most."""
    least, products = result.least_seconds, result.seconds_of_products
    lines = [
        f"{name}: {result.flop / 1e9:.0f} GFLOP of products; large matrices reach {result.peak / 1e9:.0f} GFLOP/s",
        f"least {least:.2f} s of {result.seconds:.2f} s: {least / result.seconds:.0%} of the peak",
        f"products take {products:.2f} s, at {least / products:.0%} of it",
    ]
    shown = [[op, f"{cost:.3f} s", f"{cost / result.seconds:.0%}"] for op, cost in result.slowest[:12]]
    return "\n".join(lines) + "\n\n" + Table("", ["operator", "own time", "share"], shown).format("markdown")


def _operators(steps: Steps) -> dict[str, float]:
    """Seconds of each operator's own time in one step."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        steps.train()
    seconds: dict[str, float] = defaultdict(float)
    for event in profiled.events() or ():
        seconds[event.name] += event.self_cpu_time_total / 1e6
    return dict(seconds)
