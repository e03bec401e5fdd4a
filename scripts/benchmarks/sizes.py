"""Every size of the network on one device: how fast, how near to the device's peak, and whether the loader keeps up."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from modules.reports.tables import Cell, Table
from scripts.benchmarks.measuring import peak_mb
from scripts.benchmarks.network import PLAIN, Case, Steps, Way, fastest, seconds_of_inference, seconds_of_training

FULL_RESOLUTION = "dataset.downsample_by_factor_2=false"
PROFILED_STEPS = 5


@dataclass(frozen=True)
class Size:
    """Figures of one network at one resolution, all in bfloat16 where there is hardware for it."""

    model: str
    input_hw: tuple[int, int]
    train_ms: float
    plain_train_ms: float
    train_frames_per_s: float
    infer_frames_per_s: float
    memory_mb: float  # of a training step, beside weights and moments
    tflops: float  # of a training step
    peak_share: float  # tflops over what a large matrix product reaches
    idle_share: float | None  # of the GPU, in a training loop; None on a CPU

    @property
    def ratio(self) -> float:
        return self.plain_train_ms / self.train_ms


def sizes(case: Case, rounds: int, models: tuple[str, ...]) -> list[Size]:
    """The models at half resolution, and the last of them at full resolution."""
    peak = matrix_peak_flops(case.device)
    rounds = rounds if case.device == "cpu" else 5 * rounds  # steps of milliseconds
    cases = [replace(case, model=model) for model in models]
    cases.append(replace(cases[-1], overrides=(*case.overrides, FULL_RESOLUTION)))
    return [size for each in cases if (size := _measure_if_it_fits(each, rounds, peak)) is not None]


def matrix_peak_flops(device: str) -> float:
    """Floating-point operations a second of a large matrix product in the precision of the steps."""
    dtype = torch.bfloat16 if fastest(device).bfloat16 else torch.float32
    size, repeats = (8192, 100) if device == "cuda" else (1024, 10)  # a GPU's clock takes a while to rise
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


HEADER = (
    "network",
    "input",
    "training",
    "plain way",
    "ratio",
    "training frames/s",
    "inference frames/s",
    "memory",
    "matrix peak",
    "GPU idle",
)


def markdown(results: list[Size]) -> str:
    return Table("", HEADER, [_shown(row) for row in results]).format("markdown")


def _shown(row: Size) -> list[Cell]:
    return [
        row.model,
        "{} x {}".format(*row.input_hw),
        f"{row.train_ms:.1f} ms",
        f"{row.plain_train_ms:.1f} ms",
        f"{row.ratio:.2f} x",
        f"{row.train_frames_per_s:.0f}",
        f"{row.infer_frames_per_s:.0f}",
        f"{row.memory_mb:.0f} MB",
        f"{row.peak_share:.0%}",
        None if row.idle_share is None else f"{row.idle_share:.0%}",
    ]


def _measure_if_it_fits(case: Case, rounds: int, peak: float) -> Size | None:
    try:
        return _measure(case, rounds, peak)
    except torch.OutOfMemoryError:
        print(f"{case.description} at {case.config().input_hw}: out of memory, left out", flush=True)
    torch.cuda.empty_cache()
    return None


def _measure(case: Case, rounds: int, peak: float) -> Size:
    ours = fastest(case.device)
    plain_s = _median(seconds_of_training, case, replace(PLAIN, bfloat16=ours.bfloat16), rounds)
    train_s = _median(seconds_of_training, case, ours, rounds)
    infer_s = _median(seconds_of_inference, case, ours, rounds)
    steps, num_frames = Steps(case, ours), case.batch_size * case.length
    steps.train()
    memory_mb = peak_mb(steps.train, case.device)
    with FlopCounterMode(display=False) as counter:
        steps.train()
    flops = counter.get_total_flops() / train_s
    return Size(
        case.model,
        case.config().input_hw,
        train_s * 1e3,
        plain_s * 1e3,
        num_frames / train_s,
        num_frames / infer_s,
        memory_mb,
        flops / 1e12,
        flops / peak,
        _idle_share(steps) if case.device == "cuda" else None,
    )


def _median(make: Any, case: Case, way: Way, rounds: int) -> float:
    measure = make(case, way)
    return statistics.median(measure() for _ in range(rounds))


def _idle_share(steps: Steps) -> float:
    """Share of the time in which no kernel runs, of a loop that does not wait for its results."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(PROFILED_STEPS):
        steps.train()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED_STEPS):
            steps.train()
        torch.cuda.synchronize()
    busy = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6
    return max(0.0, 1 - busy / seconds)
