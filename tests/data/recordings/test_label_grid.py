"""Which labels are used, and where frames lie between them; times below are in ms for reading, in us in the code."""

from pathlib import Path

import numpy as np
import pytest

from config.loading import load_dataset_config
from config.schema import PreprocessingConfig
from data.recordings.label_grid import FrameGrid, frame_grid


def settings(dataset: str = "gen4", **changes: object) -> PreprocessingConfig:
    return load_dataset_config([f"dataset={dataset}"]).preprocessing.model_copy(update=changes)


GEN4 = settings()


def grid(times_ms: np.ndarray | list[float], preprocessing: PreprocessingConfig | None = None) -> FrameGrid:
    times_us = np.rint(np.asarray(times_ms) * 1000).astype(np.int64)
    return frame_grid(times_us, preprocessing or settings(), window_us=50_000)


GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "label_grids.npz")


@pytest.mark.parametrize("clock", range(len(GOLDEN["names"])), ids=lambda clock: GOLDEN["names"][clock])
def test_equals_rvts_script(clock: int) -> None:
    times, labels, ends, index = (
        np.cumsum(GOLDEN[f"{clock:02d}_{key}"]) for key in ("times", "labelled_us", "ends_us", "index")
    )
    is_gen1 = GOLDEN["names"][clock].startswith("gen1")
    result = frame_grid(times, settings("gen1", reference_gen1_spacing=True) if is_gen1 else settings(), 50_000)
    np.testing.assert_array_equal(result.label_us, labels)
    np.testing.assert_array_equal(result.end_us, ends)
    np.testing.assert_array_equal(result.labelled, index)


def test_every_labelled_frame_is_a_multiple_of_the_interval_after_the_one_before() -> None:
    """Against a slow definition, on clocks of all rates, jitters and gaps."""
    rng = np.random.default_rng(0)
    for _ in range(2000):
        interval_ms, jitter_ms = rng.integers(20, 400), rng.choice([0, 0.5, 2, 7])
        times = np.cumsum(rng.choice([interval_ms, 33.3, 1, interval_ms / 3, 2500], rng.integers(1, 60)))
        times = np.unique(np.rint((times + rng.uniform(-2, 2, len(times))).clip(0) * 1000).astype(np.int64))
        changes = {"label_interval_ms": interval_ms, "label_jitter_ms": jitter_ms}
        result = frame_grid(times, GEN4.model_copy(update={**changes, "label_interval_follows_rate": False}), 50_000)
        expected: list[int] = []
        for t_us in times[times >= 100_000].tolist():
            multiples = expected and range(expected[-1] + interval_ms * 1000, t_us + 500_000, interval_ms * 1000)
            if not expected or any(abs(t_us - multiple) <= jitter_ms * 1000 for multiple in multiples):
                expected.append(t_us)
        assert result.label_us.tolist() == expected
        assert np.array_equal(result.end_us[result.labelled], result.label_us)
        assert (np.diff(result.end_us) > 0).all()


def labels_ms(rate_hz: float, seconds: float) -> np.ndarray:
    return np.arange(round(rate_hz * seconds) + 1) * 1000 / rate_hz


@pytest.mark.parametrize(("rate_hz", "every"), [(30, 3), (60, 6), (10, 1), (20, 2), (50, 5), (100, 10), (120, 12)])
def test_a_labelled_frame_every_100_ms_at_any_label_rate(rate_hz: float, every: int) -> None:
    times = labels_ms(rate_hz, 3)
    result = grid(times)
    first = int(np.argmax(times >= 100))
    assert result.label_us.tolist() == np.rint(times[first::every] * 1000).astype(int).tolist()
    assert np.diff(result.labelled).tolist() == [2] * (len(result.labelled) - 1)
    assert np.array_equal(result.end_us[result.labelled], result.label_us)
    assert abs(np.diff(result.end_us) - 50_000).max() <= 1


@pytest.mark.parametrize(
    ("rate_hz", "interval_ms", "spacing_ms"), [(25, 80, 40), (24, 83.3, 41.7), (3, 333.3, 47.6), (1, 1000, 50)]
)
def test_other_rates_use_the_nearest_multiple_of_their_period(
    rate_hz: float, interval_ms: float, spacing_ms: float
) -> None:
    result = grid(labels_ms(rate_hz, 6))
    between = result.end_us[result.labelled[0] :]
    assert np.diff(result.label_us) / 1000 == pytest.approx(interval_ms, abs=0.1)
    assert np.diff(between) / 1000 == pytest.approx(spacing_ms, abs=0.1)


def test_frames_before_the_first_label_fit_in_the_recording() -> None:
    assert grid([170.5, 270.5]).end_us.tolist() == [70_500, 120_500, 170_500, 220_500, 270_500]
    assert grid([150, 250]).end_us.tolist() == [50_000, 100_000, 150_000, 200_000, 250_000]


def test_labels_before_100_ms_are_left_out() -> None:
    assert grid([0, 99.9, 100, 200]).label_us.tolist() == [100_000, 200_000]


def test_jitter_of_2_ms_from_the_labelled_frame_before_spreads_over_the_frames_between() -> None:
    result = grid([100, 202, 298, 400.5, 502.5])
    assert result.label_us.tolist() == [100_000, 202_000, 400_500, 502_500]
    assert result.end_us.tolist()[1:4] == [100_000, 151_000, 202_000]
    assert np.diff(result.end_us[3:]).tolist() == [49_625] * 4 + [51_000] * 2


def test_a_gap_in_the_labels_is_filled_with_frames() -> None:
    result = grid([100, 200, 300, 800, 900])
    assert result.labelled.tolist() == [1, 3, 5, 15, 17]
    assert np.diff(result.end_us).tolist() == [50_000] * 17


def test_gen1_has_windows_every_50_ms_unless_reported_to_repeat_rvts() -> None:
    times = labels_ms(4, 2)
    ours = grid(times, settings("gen1"))
    assert np.diff(ours.end_us).tolist() == [50_000] * (len(ours.end_us) - 1)
    theirs = grid(times, settings("gen1", reference_gen1_spacing=True))
    assert np.diff(theirs.end_us).tolist() == [50_000] * 4 + [125_000] * (2 * 7)
    assert np.array_equal(ours.label_us, theirs.label_us)


def test_gen1_labels_at_changing_rates_keep_the_grid_of_250_ms() -> None:
    result = grid([250, 500, 750, 1750, 2750, 3750, 4000], settings("gen1"))
    assert np.diff(result.labelled).tolist() == [5, 5, 20, 20, 20, 5]


def test_a_label_clock_that_drifts_loses_no_more_than_moments_of_an_hour() -> None:
    """With 0.3 ms of jitter the median period is wrong by microseconds, and minutes later the grid by milliseconds."""
    rng = np.random.default_rng(0)
    times = labels_ms(59.94, 3600)
    result = grid(times + rng.uniform(-0.3, 0.3, len(times)))
    assert len(result.label_us) > 0.98 * len(times) / 6
    assert (np.diff(result.label_us) > 90_000).all()
    assert np.diff(result.end_us).max() < 60_000


def test_a_single_label_or_none_at_all() -> None:
    assert grid([120]).end_us.tolist() == [70_000, 120_000]
    for times in ([], [50]):
        assert [len(part) for part in (grid(times).end_us, grid(times).label_us, grid(times).labelled)] == [0, 0, 0]


def test_a_recording_that_ends_early_has_the_labels_of_its_frames() -> None:
    result = grid([100, 200, 300, 400]).first(5)
    assert result.end_us.tolist() == [50_000, 100_000, 150_000, 200_000, 250_000]
    assert result.label_us.tolist() == [100_000, 200_000]
    assert result.labelled.tolist() == [1, 3]
