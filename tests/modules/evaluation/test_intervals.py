"""modules/evaluation/intervals.py: do its intervals hold what they promise?"""

from __future__ import annotations

import numpy as np
import pytest

from modules.evaluation.intervals import interval_of, interval_of_difference, resample_weights, student_quantile
from modules.evaluation.weighted import WeightedAp, mean_over_classes

TRUTH = 20  # boxes of a sequence


def simulated(num_sequences: int, rng: np.random.Generator, help_: float = 0.0) -> WeightedAp:
    """One class; each sequence is of its own difficulty, which all its boxes share."""
    skill = np.clip(rng.beta(4, 2, num_sequences) + help_, 0, 1)
    hit = rng.random((num_sequences, 2 * TRUTH)) < np.where(np.arange(2 * TRUTH) < TRUTH, skill[:, None], 0)
    score = rng.normal(size=hit.shape) + hit
    order = np.argsort(-score, axis=None)
    group = np.repeat(np.arange(num_sequences, dtype=np.int32), 2 * TRUTH)[order]
    start = np.array([0, len(order)])
    return WeightedAp(
        group, np.where(hit.ravel()[order], 1023, 0).astype(np.uint16), start, np.full((1, num_sequences), TRUTH)
    )


def ap_of(weighted: WeightedAp, weights: np.ndarray) -> np.ndarray:
    return mean_over_classes(weighted(weights))


@pytest.mark.parametrize("num_sequences", [6, 24])
def test_about_95_of_100_intervals_hold_the_truth(num_sequences: int) -> None:
    rng = np.random.default_rng(0)
    many = simulated(4000, rng)
    truth = ap_of(many, np.ones((1, 4000), int))[0]
    repetitions, held = 300, 0
    for repetition in range(repetitions):
        sample = simulated(num_sequences, rng)
        estimate = ap_of(sample, np.ones((1, num_sequences), int))[0]
        found = interval_of(estimate, ap_of(sample, resample_weights(num_sequences, 300, repetition)), num_sequences)
        held += found.low <= truth <= found.high
    assert 0.915 <= held / repetitions <= 0.985


def test_about_5_of_100_differences_of_nothing_look_real() -> None:
    """Two configs of three seeds each on the same 12 sequences; a seed moves AP, and so does each sequence."""
    rng = np.random.default_rng(1)
    repetitions, real = 400, 0
    weights = resample_weights(12, 400)
    for _ in range(repetitions):
        common = rng.normal(0.5, 0.1, 12)
        sides = []
        for _side in range(2):
            seeds = common + rng.normal(0, 0.02, (3, 1)) + rng.normal(0, 0.03, (3, 12))
            sides.append((seeds.mean(axis=1).tolist(), seeds @ weights.T / 12))
        (ap, resampled), (other, other_resampled) = sides
        real += interval_of_difference((ap, other), (resampled, other_resampled), 12).excludes_0
    assert 0.01 <= real / repetitions <= 0.085


def test_pairs_are_compared_and_p_agrees_with_the_interval() -> None:
    """The same hard and easy sequences: a small gain in each shows, though sequences differ by far more."""
    weights = resample_weights(10)
    base = np.linspace(0.1, 0.9, 10)
    better = base + 0.02 + np.tile([0.004, -0.004], 5)

    def compared(one: np.ndarray, other: np.ndarray):
        means = [side @ weights.T / 10 for side in (one[None], other[None])]
        return interval_of_difference(([one.mean()], [other.mean()]), (means[0], means[1]), 10)

    found = compared(better, base)
    assert found.excludes_0
    assert found.estimate == pytest.approx(0.02)
    assert found.p_value < 0.05
    alike = compared(base + np.tile([0.05, -0.049], 5), base)
    assert not alike.excludes_0
    assert alike.p_value > 0.05
    same = compared(base, base)
    assert (same.low, same.high, same.p_value) == (0, 0, 1)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1e6, 1.960)]
)
def test_quantiles_of_student_s_t(freedom: float, quantile: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, rel=2e-3)
    assert student_quantile(0.025, freedom) == pytest.approx(-quantile, rel=2e-3)
