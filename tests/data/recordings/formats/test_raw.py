"""Prophesee's RAW against words written by hand, whose events stand in the test."""

from pathlib import Path

import numpy as np
import pytest

from config.errors import UserError
from data.recordings.cleaning import BACKWARDS, DAMAGED_WORDS
from tests.event_files import (
    EventRows,
    in_order,
    make_events,
    raw_file,
    read_events,
    write_evt2,
    write_evt3,
    write_evt21,
)

TIME_HIGH, TIME_LOW, BASE, VECTOR_12, VECTOR_8 = 8 << 12, 6 << 12, 3 << 12, 4 << 12, 5 << 12
ON = 1 << 11
SENSOR = ["evt 3.0", "geometry 640x480"]
WRITERS = {"<u4": write_evt2, "<u8": write_evt21, "<u2": write_evt3}


def read_words(path: Path, words: list[int], word: str = "<u2", header: list[str] = SENSOR) -> tuple[EventRows, int]:
    """Events with times on the sensor's clock, and where boxes start to count."""
    path.write_bytes(raw_file(header, words, word))
    rows, recording = read_events(path)
    return rows, recording.clock_start_us


def test_evt3_by_hand(tmp_path: Path) -> None:
    """12 and 8 columns go on from the base; words before the first high time give nothing, nor do types 14 and 15."""
    words = [2 << 12 | 9, TIME_HIGH | 5, TIME_LOW | 3, 7, 2 << 12 | ON | 100, 14 << 12 | 1, 15 << 12 | 77]
    words += [BASE | ON | 200, VECTOR_12 | 0b1000_0000_0001, VECTOR_8 | 0b10, TIME_LOW | 4, 8, 2 << 12 | 50]
    rows, _ = read_words(tmp_path / "a.raw", words)
    t = 5 << 12
    expected = [[100, 7, 1, t + 3], [200, 7, 1, t + 3], [211, 7, 1, t + 3], [213, 7, 1, t + 3], [50, 8, 0, t + 4]]
    assert rows.tolist() == expected


@pytest.mark.parametrize(("first_high", "start_us"), [(0, 0), (1, 0), (2, 1 << 12), (2861, 2860 << 12)])
def test_evt3_boxes_count_from_one_high_time_before_the_first(tmp_path: Path, first_high: int, start_us: int) -> None:
    """As in Prophesee's decoder, which starts its clock there, at 0 where the first is 0."""
    words = [TIME_HIGH | first_high, TIME_LOW | 20, 7, 2 << 12 | 100]
    rows, clock_start_us = read_words(tmp_path / "a.raw", words)
    assert (rows[0, 3], clock_start_us) == ((first_high << 12) + 20, start_us)


@pytest.mark.parametrize("name", ["evt 2.0", "evt 2.1"])
def test_evt2_boxes_count_from_the_first_high_time(tmp_path: Path, name: str) -> None:
    bit = 28 if name == "evt 2.0" else 60
    high, event = (8 << 28 | 1234, 1 << 28 | 5 << 22 | 32 << 11 | 7)
    words = [high << bit - 28, event << bit - 28 | (bit == 60)]
    rows, clock_start_us = read_words(tmp_path / "a.raw", words, "<u4" if bit == 28 else "<u8", [name])
    assert rows.tolist() == [[32, 7, 1, 1234 * 64 + 5]]
    assert clock_start_us == 1234 * 64


def test_evt21_of_the_first_cameras_has_the_halves_of_a_word_swapped(tmp_path: Path) -> None:
    events = make_events()
    write_evt21(tmp_path / "a.raw", events, is_legacy=True)
    assert np.array_equal(in_order(read_events(tmp_path / "a.raw")[0]), in_order(events))


def test_evt21_word_gives_an_event_for_each_bit(tmp_path: Path) -> None:
    words = [8 << 60, 1 << 60 | 3 << 54 | 64 << 43 | 9 << 32 | 1 << 31 | 0b101]
    rows, _ = read_words(tmp_path / "a.raw", words, "<u8", ["evt 2.1"])
    assert rows.tolist() == [[64, 9, 1, 3], [66, 9, 1, 3], [95, 9, 1, 3]]


@pytest.mark.parametrize(("word", "turn_us"), [("<u4", 1 << 34), ("<u8", 1 << 34), ("<u2", 1 << 24)])
def test_the_sensors_clock_goes_on_where_its_high_time_starts_again(tmp_path: Path, word: str, turn_us: int) -> None:
    events = make_events(2000, 4_000_000, start_us=turn_us - 2_000_000)
    WRITERS[word](tmp_path / "a.raw", events)
    assert np.array_equal(in_order(read_events(tmp_path / "a.raw")[0]), in_order(events))


@pytest.mark.parametrize("word", WRITERS)
@pytest.mark.parametrize("bit", [6, 8, 11])
@pytest.mark.parametrize("place", [0.0, 0.6])
def test_one_damaged_high_time_costs_no_more_than_its_own_events(
    tmp_path: Path, word: str, bit: int, place: float
) -> None:
    events = make_events(20_000, 2_000_000)
    WRITERS[word](tmp_path / "a.raw", events)
    data = (tmp_path / "a.raw").read_bytes()
    start = data.index(b"% end\n") + 6
    words = np.frombuffer(data[start:], word).copy()
    size = 8 * words.itemsize
    high_times = np.flatnonzero(words >> size - 4 == 8)
    words[high_times[int(place * len(high_times))]] ^= words.dtype.type(1 << bit + (32 if size == 64 else 0))
    (tmp_path / "a.raw").write_bytes(data[:start] + words.tobytes())
    rows, recording = read_events(tmp_path / "a.raw")
    wrong = {tuple(row) for row in events.tolist()} ^ {tuple(row) for row in rows.tolist()}
    assert len(wrong) <= 2 * 50  # an EVT3 high time holds for 4.1 ms, 41 events here
    assert recording.faults[DAMAGED_WORDS] == 1
    assert recording.faults[BACKWARDS] <= 50


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (["evt 3.0", "geometry 1280x720"], (720, 1280)),
        (["format EVT3;height=720;width=1280"], (720, 1280)),
        (["evt 3.0"], None),
    ],
)
def test_the_header_tells_the_sensor(tmp_path: Path, header: list[str], size: tuple[int, int] | None) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(raw_file(header, [TIME_HIGH, 7, 2 << 12 | 3], "<u2"))
    assert read_events(path, sensor_hw=(720, 1280))[1].sensor_hw_of_file == size
    if size:
        with pytest.raises(UserError, match=r"a.raw is from a sensor of \(720, 1280\).*dataset.resolution_hw"):
            read_events(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (["evt 4.0"], "is EVT4.0; RAW is read as EVT2, EVT21, EVT3"),
        (["format HISTO3D;height=320;width=320"], "is HISTO3D"),
        (["serial_number 5"], "names no encoding"),
        (["evt 3.0", "geometry 640x480", "format EVT3;height=720;width=1280"], "two sensor sizes"),
        (["evt 3.0", "geometry wide"], "sensor size that is none"),
    ],
)
def test_other_headers_are_refused_by_what_they_say(tmp_path: Path, header: list[str], message: str) -> None:
    with pytest.raises(UserError, match=rf"a.raw.*{message}"):
        read_words(tmp_path / "a.raw", [TIME_HIGH], header=header)
