"""Cleaning of faulty events and cutting into windows, against plain definitions."""

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from config.errors import UserError
from data.recordings.cleaning import BACKWARDS, OUTSIDE
from data.recordings.events import Events
from data.recordings.recording import Recording

SENSOR_HW = (20, 30)
Row = tuple[int, int, int, int]  # x, y, polarity, t in us


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files are read in pieces of 7 events, so that windows span many of them."""
    monkeypatch.setattr("data.recordings.formats.common.PIECE_EVENTS", 7)
    return tmp_path / "a_td.h5"


def write(path: Path, rows: list[Row], **scalars: int) -> None:
    with h5py.File(path, "w") as file:
        for key, column in zip("xypt", np.array(rows, np.int64).reshape(-1, 4).T, strict=True):
            file[f"events/{key}"] = column.astype(np.int8) if key == "p" else column
        for key, value in scalars.items():
            file[f"events/{key}"] = value


def rows_of(events: Events) -> list[Row]:
    return list(zip(*(column.tolist() for column in (events.x, events.y, events.polarity, events.t_us)), strict=True))


def random_rows(num_events: int, duration_us: int) -> list[Row]:
    """A tenth of them outside the sensor or out of order."""
    rng = np.random.default_rng(0)
    lows, highs = (-1, -1, 0, -1), (31, 21, 2, duration_us)
    rows = np.stack([rng.integers(*bounds, num_events) for bounds in zip(lows, highs, strict=True)], axis=1)
    rows[:, 3] = np.sort(rows[:, 3])
    rows[rng.choice(num_events, num_events // 20, replace=False), 3] -= 100
    rows[rng.choice(num_events, 3, replace=False), 1] = 33014
    return [tuple(row) for row in rows.tolist()]


def plain_cleaning(rows: list[Row]) -> tuple[list[Row], int]:
    kept, clock_us, backwards = [], -(10**18), 0
    for x, y, polarity, t_us in rows:
        if 0 <= x < 30 and 0 <= y < 20:
            backwards += t_us < clock_us
            clock_us = max(clock_us, t_us)
            kept.append((x, y, int(polarity > 0), clock_us))
    return kept, backwards


def test_faults_are_repaired_and_counted(path: Path) -> None:
    rows = random_rows(1000, 50_000)
    write(path, rows)
    expected, backwards = plain_cleaning(rows)
    recording = Recording(path, SENSOR_HW)
    assert [row for piece in recording.pieces() for row in rows_of(piece)] == expected
    assert recording.faults == {OUTSIDE: 1000 - len(expected), BACKWARDS: backwards}
    assert backwards > 10
    assert (recording.num_events, recording.end_us) == (1000, expected[-1][3])


def test_garbage_outside_the_sensor_does_not_move_the_clock(path: Path) -> None:
    write(path, [(0, 0, 1, 10), (0, 33014, 1, 9_000_000), (1, 0, 1, 20)])
    pieces = Recording(path, SENSOR_HW).pieces()
    assert rows_of(next(pieces)) == [(0, 0, 1, 10), (1, 0, 1, 20)]


BOUNDS = {
    "side by side": [(start, start + 5000) for start in range(0, 50_000, 5000)],
    "overlapping": [(start, start + 5000) for start in range(0, 50_000, 1700)],
    "with gaps": [(start, start + 300) for start in range(7000, 50_000, 9000)],
    "one for all": [(-(10**9), 10**9)],
}


@pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS.keys())
def test_windows_hold_both_of_their_end_points(path: Path, bounds: list[tuple[int, int]]) -> None:
    rows = random_rows(1000, 50_000)
    write(path, rows)
    kept, _ = plain_cleaning(rows)
    windows = [rows_of(window) for window in Recording(path, SENSOR_HW).windows(bounds)]
    assert windows == [[row for row in kept if start <= row[3] <= end] for start, end in bounds]


def test_an_event_on_the_border_of_two_windows_is_in_both(path: Path) -> None:
    write(path, [(1, 1, 0, 100), (2, 2, 1, 200), (3, 3, 1, 300)])
    windows = Recording(path, SENSOR_HW).windows([(100, 200), (200, 300)])
    assert [[row[3] for row in rows_of(window)] for window in windows] == [[100, 200], [200, 300]]


def test_windows_in_an_empty_stretch_are_empty(path: Path) -> None:
    write(path, [(1, 1, 0, 1000), (2, 2, 1, 60_000_000)])
    bounds = [(0, 2000), (30_000_000, 30_050_000), (59_990_000, 60_010_000)]
    assert [len(window) for window in Recording(path, SENSOR_HW).windows(bounds)] == [1, 0, 1]


def test_a_silence_longer_than_wanted_is_told_before_its_windows(path: Path) -> None:
    write(path, [(1, 1, 0, 1000), (2, 2, 1, 60_000_000)])
    bounds = [(0, 2000), (2000, 4000), (4000, 6000)]
    assert len(list(Recording(path, SENSOR_HW).windows(bounds, longest_silence_us=60_000_000))) == 3
    with pytest.raises(UserError, match=r"a_td\.h5 has no events from 0\.004 s to 60\.000 s"):
        list(Recording(path, SENSOR_HW).windows(bounds, longest_silence_us=50_000_000))


def test_more_events_than_a_file_of_its_size_holds_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, random_rows(100, 1000))
    monkeypatch.setattr("data.recordings.formats.common.MOST_EVENTS_PER_BYTE", 20 / path.stat().st_size)
    recording = Recording(path, SENSOR_HW)
    with pytest.raises(UserError, match=r"claims more than 20\.0 events, which no file of its size holds"):
        list(recording.pieces())


def test_windows_end_a_second_after_the_last_event(path: Path) -> None:
    write(path, [(1, 1, 0, 1000)])
    bounds = [(0, 2000), (900_000, 950_000), (1_000_900, 1_050_000), (1_001_100, 1_060_000), (9_000_000, 9_050_000)]
    assert [len(window) for window in Recording(path, SENSOR_HW).windows(bounds)] == [1, 0, 0]


def test_a_recording_without_events_has_no_windows(path: Path) -> None:
    write(path, [])
    assert list(Recording(path, SENSOR_HW).windows([(0, 50_000)])) == []


def test_another_sensor_is_an_error(path: Path) -> None:
    write(path, [(1, 1, 0, 1000)], height=720, width=1280)
    with pytest.raises(
        UserError, match=r"a_td.h5 is from a sensor of \(720, 1280\).*dataset.resolution_hw is \(20, 30\)"
    ):
        Recording(path, SENSOR_HW)


def test_memory_does_not_grow_with_the_length_of_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.recordings.formats.common.PIECE_EVENTS", 2**14)
    num_events = 1_000_000
    words = np.zeros((num_events, 2), "<u4")
    words[:, 0] = np.arange(num_events)
    path = tmp_path / "a.dat"
    path.write_bytes(b"% Version 2\n" + bytes([12, 8]) + words.tobytes())
    recording = Recording(path, SENSOR_HW)
    next(recording.pieces())  # compiles
    recording = Recording(path, SENSOR_HW)
    tracemalloc.start()
    try:
        sizes = [len(window) for window in recording.windows((t, t + 999) for t in range(0, num_events, 1000))]
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sizes == [1000] * 1000
    assert peak_bytes < 3e6  # the file has 8e6
