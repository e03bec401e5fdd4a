"""How the cost of a training step, and of a plan, grows with its parameters."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import numpy as np

from data.plan import TrainingPlan
from scripts.benchmarks.network import Case, fastest, seconds_of_training

LENGTHS = (1, 2, 5, 10, 20)
BATCH_SIZES = (1, 2, 4, 8)
SCALES = (0.5, 1, 2)  # of both sides
BOXES_PER_FRAME = (0, 8, 32, 128)
SEQUENCES = (100, 1_000, 10_000)


def growth(case: Case, rounds: int, most: int | None = None) -> list[tuple[str, str, str]]:
    """Rows (what varies, its value, figure); all else as in `case`, of 2 lanes and 5 frames.

    `most` is how many values of each are taken, all by default.
    """
    case = replace(case, batch_size=2, length=5)
    scaled = [_scaled(case, scale) for scale in SCALES[:most]]
    rows = [("frames a chunk", str(n), _rate(replace(case, length=n), rounds)) for n in LENGTHS[:most]]
    rows += [("lanes", str(n), _rate(replace(case, batch_size=n), rounds)) for n in BATCH_SIZES[:most]]
    rows += [("pixels", _pixels(each), _rate(each, rounds)) for each in scaled]
    rows += [("boxes a frame", str(n), _rate(replace(case, boxes_per_frame=n), rounds)) for n in BOXES_PER_FRAME[:most]]
    return rows + [("sequences", f"{n:,}", _plan(n)) for n in SEQUENCES[:most]]


def _rate(case: Case, rounds: int) -> str:
    measure = seconds_of_training(case, fastest(case.device))
    seconds = statistics.median(measure() for _ in range(rounds))
    return f"{case.length * case.batch_size / seconds:.2f} frames/s"


def _scaled(case: Case, scale: float) -> Case:
    height, width = (int(side * scale) for side in case.config().dataset.resolution_hw)
    return replace(case, overrides=(*case.overrides, f"dataset.resolution_hw=[{height},{width}]"))


def _pixels(case: Case) -> str:
    return "{} x {}".format(*case.config().input_hw)


def _plan(num_sequences: int) -> str:
    """An hour of recording is 12 sequences of 5 minutes."""
    stops = np.random.default_rng(0).integers(500, 6000, num_sequences)
    streams = np.stack([np.arange(num_sequences), np.zeros_like(stops), stops], axis=1)
    started = time.perf_counter()
    plan = TrainingPlan(streams, streams[:0, :2], length=5, num_stream_rows=8, num_random_rows=0, seed=0)
    plan.batch(0, 0)
    first = time.perf_counter() - started
    steps = range(0, plan.steps_per_epoch, max(plan.steps_per_epoch // 100, 1))
    started = time.perf_counter()
    for step in steps:
        plan.batch(0, step)
    later = (time.perf_counter() - started) / len(steps)
    return f"{first * 1e3:.1f} ms for an epoch's plan, {later * 1e6:.0f} us a step"
