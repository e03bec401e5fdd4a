"""Confidence intervals by the bootstrap over sequences, and over training runs where there are several.

Frames of one sequence are alike, so sequences are what is drawn with repetition (Efron and Tibshirani, "An Introduction
to the Bootstrap", 1993). With few of them percentiles are too narrow: deviations are widened by sqrt(n / (n - 1)) and
percentiles taken where Student's t puts the level (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

RESAMPLES, LEVEL = 1000, 0.95
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A figure with the bounds of its 95 % interval."""

    estimate: float
    low: float
    high: float
    p_value: float  # of the figure's being 0, two-sided

    @property
    def excludes_0(self) -> bool:
        return self.low > 0 or self.high < 0


def resample_weights(num_groups: int, resamples: int = RESAMPLES, seed: int = 0) -> Int64[ndarray, "resamples groups"]:
    """How often each group is drawn; the same for the same numbers, so that runs are compared in pairs."""
    return np.random.default_rng(seed).multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=resamples)


def interval_of(estimate: float, resampled: Float64[ndarray, " r"], num_groups: int) -> Interval:
    """Of a figure and its values over resamples of `num_groups` sequences."""
    assert num_groups > 1, "one sequence cannot be resampled"
    values = estimate + math.sqrt(num_groups / (num_groups - 1)) * (resampled - estimate)
    return _interval(estimate, values, num_groups - 1)


def interval_of_difference(
    estimates: tuple[Sequence[float], Sequence[float]],
    resampled: tuple[Float64[ndarray, "runs_a r"], Float64[ndarray, "runs_b r"]],
    num_groups: int,
    seed: int = 1,
) -> Interval:
    """Of the mean of some runs less the mean of others, both over the same resamples of `num_groups` sequences.

    Runs of a side that differ in their seed are drawn with repetition as well, where there are several.
    """
    assert num_groups > 1, "one sequence cannot be resampled"
    rng = np.random.default_rng(seed)
    means = [float(np.mean(side)) for side in estimates]
    estimate = means[0] - means[1]
    between = resampled[0].mean(axis=0) - resampled[1].mean(axis=0)
    values = estimate + math.sqrt(num_groups / (num_groups - 1)) * (between - estimate)
    parts = [(float(values.var()), num_groups - 1)]
    for sign, side in zip((1, -1), resampled, strict=True):
        runs, resamples = side.shape
        if runs > 1:
            drawn = np.take_along_axis(side, rng.integers(0, runs, (runs, resamples)), axis=0).mean(axis=0)
            noise = math.sqrt(runs / (runs - 1)) * (drawn - side.mean(axis=0))
            values = values + sign * noise
            parts.append((float(noise.var()), runs - 1))
    return _interval(estimate, values, _degrees_of_freedom(parts))


def _degrees_of_freedom(parts: Sequence[tuple[float, int]]) -> float:
    """Welch and Satterthwaite's, of a sum of variances."""
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return parts[0][1]
    return total**2 / sum(variance**2 / freedom for variance, freedom in parts)


def _interval(estimate: float, values: Float64[ndarray, " r"], freedom: float) -> Interval:
    tail = _NORMAL.cdf(student_quantile((1 - LEVEL) / 2, freedom))
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high), _p_value(values, freedom))


def _p_value(values: Float64[ndarray, " r"], freedom: float) -> float:
    """The level at which an interval as above would just reach 0."""
    if (values == 0).all():
        return 1.0
    share = min(((values <= 0).sum() + 1) / (len(values) + 1), ((values >= 0).sum() + 1) / (len(values) + 1), 0.5)
    wanted, low, high = _NORMAL.inv_cdf(float(share)), 1e-12, 1.0
    for _ in range(60):  # the quantile falls with the level
        middle = (low + high) / 2
        low, high = (middle, high) if student_quantile(middle / 2, freedom) < wanted else (low, middle)
    return (low + high) / 2


def student_quantile(probability: float, freedom: float) -> float:
    """Of Student's t: exact for 1 and 2 degrees of freedom, good to 1 % from 3 on (Abramowitz and Stegun, 26.7.5)."""
    if probability == 0.5:
        return 0.0
    if freedom < 2:
        return math.tan(math.pi * (probability - 0.5))
    if freedom < 3:
        return (2 * probability - 1) * math.sqrt(2 / (4 * probability * (1 - probability)))
    z = _NORMAL.inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
