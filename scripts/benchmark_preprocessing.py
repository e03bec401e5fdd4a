"""Measure counting and the frame store on one core, against the usual way.

python scripts/benchmark_preprocessing.py

Events are spread like those of a scene with moving edges: a few pixels have most of them. Times are CPU seconds of the
best of several rounds, as other processes can only slow a round down.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.frame_store import FrameStore, write_frame_store
from data.representation import add_stacked_histogram
from scripts import benchmark_baselines

SENSOR_HW = (720, 1280)
NUM_FRAMES = 20
CHUNK = 5
ROUNDS = 15


def best_cpu_s(function: Callable[[], object]) -> float:
    function()
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


def event_rates(hw: tuple[int, int], rng: np.random.Generator) -> ndarray:
    """Smooth noise, exponentiated: activity of the pixels, summing to 1."""
    spectrum = np.fft.rfft2(rng.normal(size=hw))
    frequency = np.hypot(np.fft.fftfreq(hw[0])[:, None], np.fft.rfftfreq(hw[1]))
    smooth = np.fft.irfft2(spectrum * np.exp(-((40 * frequency) ** 2)), s=hw)
    rates = np.exp(2 * smooth / smooth.std())
    return rates / rates.sum()


def measure_counting(num_events: int, rng: np.random.Generator) -> None:
    pixel = rng.choice(SENSOR_HW[0] * SENSOR_HW[1], num_events, p=event_rates(SENSOR_HW, rng).ravel())
    y, x = (axis.astype(np.uint16) for axis in np.divmod(pixel, SENSOR_HW[1]))
    polarity = rng.integers(0, 2, num_events).astype(np.uint8)
    t_us = np.sort(rng.integers(0, 50_000, num_events))
    frames = {stride: np.zeros((20, *(size // stride for size in SENSOR_HW)), np.uint8) for stride in (1, 2)}

    def count(stride: int) -> None:
        frames[stride].fill(0)
        add_stacked_histogram(x, y, polarity, t_us, 10, stride, frames[stride])

    def usual_way() -> torch.Tensor:
        return benchmark_baselines.stacked_histogram(x, y, polarity, t_us, 10, 10, SENSOR_HW)

    baseline_s, half_s, full_s = best_cpu_s(usual_way), best_cpu_s(lambda: count(2)), best_cpu_s(lambda: count(1))
    assert np.array_equal(usual_way().numpy(), frames[2])
    print(f"{num_events:>9,} events a window, M events/s: plain tensors {num_events / baseline_s / 1e6:.0f}, ", end="")
    print(f"half size {num_events / half_s / 1e6:.0f} (x {baseline_s / half_s:.1f}), ", end="")
    print(f"full size {num_events / full_s / 1e6:.0f} (x {baseline_s / full_s:.1f})")


def measure_store(density: float, rng: np.random.Generator) -> None:
    rates = event_rates((360, 640), rng)
    scale = density / rates.mean()
    while (1 - np.exp(-scale * rates)).mean() < density:
        scale *= 1.02
    frames = rng.poisson(scale * rates, (NUM_FRAMES, 20, 360, 640)).clip(max=10).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        reference, compact = Path(folder) / "frames.h5", Path(folder) / "frames_compact.h5"
        benchmark_baselines.write_frames(reference, frames)
        write_frame_store(compact, frames, frames.shape[1:])
        store, out = FrameStore(compact), np.empty((CHUNK, *frames.shape[1:]), np.uint8)

        def usual_way() -> None:
            for start in range(0, NUM_FRAMES, CHUNK):
                benchmark_baselines.read_frames(reference, start, start + CHUNK)

        def read() -> None:
            for start in range(0, NUM_FRAMES, CHUNK):
                store.read(start, start + CHUNK, out)

        baseline, ours = NUM_FRAMES / best_cpu_s(usual_way), NUM_FRAMES / best_cpu_s(read)
        kilobytes = [path.stat().st_size / NUM_FRAMES / 1e3 for path in (reference, compact)]
        print(f"{(frames > 0).mean():>9.1%} non-zero, frames a CPU second: RVT's file {baseline:.0f} ", end="")
        print(f"({kilobytes[0]:.0f} KB a frame), compact {ours:.0f} (x {ours / baseline:.1f}, {kilobytes[1]:.0f} KB)")


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    for num_events in (100_000, 1_000_000):
        measure_counting(num_events, rng)
    for density in (0.005, 0.02, 0.06):
        measure_store(density, rng)


if __name__ == "__main__":
    main()
