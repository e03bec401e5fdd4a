"""The stacked histogram against its definition, event by event, and against RVT's own arrays."""

from pathlib import Path

import numpy as np
import pytest

from data.recordings.events import Events as RecordedEvents
from data.recordings.representation import add_stacked_histogram, count_window

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "representation.npz")
CASES = ["main", "unsorted_inside", "identical_t", "single", "empty", "edges_50000", "short_3us", "long_window"]
Events = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def histogram(events: Events, shape: tuple[int, int, int], count_cutoff: int = 10, stride: int = 1) -> np.ndarray:
    frame = np.zeros(shape, np.uint8)
    add_stacked_histogram(*events, count_cutoff, stride, frame)
    return frame


def plain_counts(events: Events, bins: int, frame_hw: tuple[int, int]) -> np.ndarray:
    """The definition: counts without a cut-off, [2 * bins, H, W]."""
    counts = np.zeros((2, bins, *frame_hw), np.int64)
    x, y, polarity, t_us = (column.tolist() for column in events)
    for i in range(len(t_us)):
        time_bin = min((t_us[i] - t_us[0]) * bins // max(t_us[-1] - t_us[0], 1), bins - 1)
        counts[polarity[i], time_bin, y[i], x[i]] += 1
    return counts.reshape(2 * bins, *frame_hw)


def as_columns(x: np.ndarray, y: np.ndarray, polarity: np.ndarray, t_us: np.ndarray) -> Events:
    return x.astype(np.uint16), y.astype(np.uint16), polarity.astype(np.uint8), t_us.astype(np.int64)


def golden_events(case: str) -> Events:
    """In order of time: only the first and the last event determine the bins, so that the histogram stays the same."""
    columns = [GOLDEN[f"{case}__{key}"] for key in "xypt"]
    order = np.argsort(columns[3], kind="stable")
    return as_columns(*(column[order] for column in columns))


def random_events(seed: int, num_events: int, frame_hw: tuple[int, int], duration_us: int) -> Events:
    rng = np.random.default_rng(seed)
    sizes = (frame_hw[1], frame_hw[0], 2)
    x, y, polarity = (rng.integers(0, size, num_events) for size in sizes)
    return as_columns(x, y, polarity, np.sort(rng.integers(0, duration_us, num_events)))


@pytest.mark.parametrize("case", CASES)
def test_equals_rvt_except_that_counts_saturate(case: str) -> None:
    """RVT counts in 8 bits: a cell hit 259 times has 3 there, and the cut-off here."""
    expected = GOLDEN[f"{case}__hist_cut10_fast"].copy()
    expected[plain_counts(golden_events(case), 10, (45, 76)) >= 256] = 10
    assert np.array_equal(histogram(golden_events(case), (20, 45, 76)), expected)


def test_hot_pixels_are_part_of_the_golden_events() -> None:
    counts = plain_counts(golden_events("main"), 10, (45, 76))
    assert (GOLDEN["main__hist_cut10_fast"][counts >= 256] < 10).any()


@pytest.mark.parametrize("duration_us", [1, 7, 997, 50_001])
@pytest.mark.parametrize("bins", [1, 3, 10])
def test_equals_the_definition(bins: int, duration_us: int) -> None:
    events = random_events(duration_us, 6000, (9, 14), duration_us)
    expected = plain_counts(events, bins, (9, 14)).clip(max=10)
    assert np.array_equal(histogram(events, (2 * bins, 9, 14)), expected)


@pytest.mark.parametrize("sensor_hw", [(8, 12), (9, 13)])
def test_half_resolution_picks_odd_rows_and_columns(sensor_hw: tuple[int, int]) -> None:
    events = random_events(1, 5000, sensor_hw, 50_000)
    full = plain_counts(events, 10, sensor_hw).clip(max=10)
    half = histogram(events, (20, sensor_hw[0] // 2, sensor_hw[1] // 2), stride=2)
    assert np.array_equal(half, full[:, 1::2, 1::2][:, : half.shape[1], : half.shape[2]])


@pytest.mark.parametrize(("sensor_hw", "frame_hw"), [((8, 12), (6, 9)), ((9, 13), (7, 10)), ((8, 12), (3, 5))])
def test_between_sizes_each_event_counts_once_where_its_pixel_s_middle_falls(
    sensor_hw: tuple[int, int], frame_hw: tuple[int, int]
) -> None:
    x, y, polarity, t_us = random_events(2, 5000, sensor_hw, 50_000)
    frame = np.zeros((20, *frame_hw), np.uint8)
    count_window(RecordedEvents(x, y, polarity, t_us), 255, sensor_hw, frame)
    columns, rows = (
        [int((pixel + 0.5) * few / many) for pixel in pixels.tolist()]
        for pixels, few, many in ((x, frame_hw[1], sensor_hw[1]), (y, frame_hw[0], sensor_hw[0]))
    )
    expected = plain_counts(as_columns(np.array(columns), np.array(rows), polarity, t_us), 10, frame_hw)
    assert np.array_equal(frame, expected)
    assert frame.sum() == 5000


@pytest.mark.parametrize(("frame_hw", "stride"), [((8, 12), 1), ((4, 6), 2)])
def test_the_sensor_s_size_and_half_of_it_are_by_the_reference_s_rules(frame_hw: tuple[int, int], stride: int) -> None:
    events = random_events(3, 5000, (8, 12), 50_000)
    frame = np.zeros((20, *frame_hw), np.uint8)
    count_window(RecordedEvents(*events), 10, (8, 12), frame)
    assert np.array_equal(frame, histogram(events, (20, *frame_hw), stride=stride))


@pytest.mark.parametrize("name", ["uint8_even", "uint8_odd"])
def test_that_choice_of_pixels_is_rvts(name: str) -> None:
    full, half = GOLDEN[f"ds_{name}__in"], GOLDEN[f"ds_{name}__out"]
    assert np.array_equal(full[:, :, 1::2, 1::2][..., : half.shape[2], : half.shape[3]], half)


@pytest.mark.parametrize("count_cutoff", [1, 10, 255])
def test_a_count_stops_at_the_cut_off(count_cutoff: int) -> None:
    same_cell = as_columns(*np.zeros((4, 1000)))
    assert histogram(same_cell, (2, 1, 1), count_cutoff).ravel().tolist() == [count_cutoff, 0]


def test_a_window_without_events_is_empty() -> None:
    assert not histogram(as_columns(*np.zeros((4, 0))), (20, 4, 6)).any()
