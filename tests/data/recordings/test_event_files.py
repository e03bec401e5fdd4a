"""Files of every format, written here word by word from their definitions, and what faulty ones are answered with."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from config.errors import UserError
from data.recordings.event_files import open_event_file
from data.recordings.formats import common
from data.recordings.formats.common import Reading
from data.recordings.recording import Recording
from tests.event_files import (
    SENSOR_HW,
    EventRows,
    in_order,
    make_events,
    read_events,
    write_aedat2,
    write_aedat4,
    write_dat,
    write_evt2,
    write_evt3,
    write_evt21,
    write_hdf5,
    write_metavision,
    write_npz,
    write_text,
)


def read(path: Path) -> EventRows:
    pieces = [
        np.stack([column.astype(np.int64) for column in piece], axis=1)
        for piece in open_event_file(path, Reading()).pieces(common.PIECE_EVENTS)
    ]
    return np.concatenate(pieces)


WRITERS = {
    "a_td.h5": write_hdf5,
    "a_td.dat": write_dat,
    "evt2.raw": write_evt2,
    "evt21.raw": write_evt21,
    "evt3.raw": write_evt3,
    "a.aedat4": write_aedat4,
    "a.aedat": write_aedat2,
    "metavision.hdf5": write_metavision,
    "a.npz": write_npz,
    "a.txt": write_text,
}


@pytest.mark.parametrize("name", WRITERS)
def test_events_come_back(tmp_path: Path, name: str) -> None:
    events = make_events()
    WRITERS[name](tmp_path / name, events)
    result, recording = read_events(tmp_path / name)
    assert np.array_equal(in_order(result), in_order(events))
    assert (recording.first_t_us, recording.last_t_us) == (events[0, 3], events[-1, 3])
    assert recording.faults == {}


@pytest.mark.parametrize("name", WRITERS)
def test_a_long_file_comes_in_pieces(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.recordings.formats.common.PIECE_EVENTS", 1000)
    WRITERS[name](tmp_path / name, make_events())
    sizes = [len(piece.t) for piece in open_event_file(tmp_path / name, Reading()).pieces(common.PIECE_EVENTS)]
    assert sum(sizes) == 4000
    assert len(sizes) >= 2 or name == "a.aedat4"  # here a piece holds whole packets
    assert max(sizes) <= 2000 or name == "a.aedat4"  # text is cut by its bytes


@pytest.mark.parametrize(("t_type", "p_type"), [(np.uint32, np.int8), (np.uint64, np.bool_), (np.int32, np.uint16)])
def test_hdf5_with_other_integer_types(tmp_path: Path, t_type: type, p_type: type) -> None:
    scalars = {"t_offset": 5, "height": 480, "width": 640}
    write_hdf5(tmp_path / "a.h5", make_events(), t_type=t_type, p_type=p_type, **scalars)
    assert np.array_equal(read(tmp_path / "a.h5"), make_events(start_us=5))
    assert open_event_file(tmp_path / "a.h5", Reading()).sensor_hw == (480, 640)


def test_files_tell_the_sensor_size_or_leave_it_open(tmp_path: Path) -> None:
    write_dat(tmp_path / "a.dat", make_events())
    write_dat(tmp_path / "b.dat", make_events(), header=b"% Version 2\n")
    write_hdf5(tmp_path / "c.h5", make_events())
    assert [open_event_file(tmp_path / name, Reading()).sensor_hw for name in ("a.dat", "b.dat", "c.h5")] == [
        (480, 640),
        None,
        None,
    ]


@pytest.mark.parametrize("name", ["a_td.h5", "a_td.dat"])
def test_32_bit_times_go_on_after_71_minutes(tmp_path: Path, name: str) -> None:
    events = make_events(duration_us=3 * 2**32)
    if name == "a_td.h5":
        write_hdf5(tmp_path / name, events % [2**16, 2**16, 2, 2**32], t_type=np.uint32)
    else:
        write_dat(tmp_path / name, events)
    assert np.array_equal(read_events(tmp_path / name)[0][:, 3], events[:, 3])


def test_an_event_outside_the_sensor_reaches_the_caller(tmp_path: Path) -> None:
    """They are counted further on; a reader that drops them silently would hide a wrong sensor size."""
    events = make_events(6)
    events[2, :2] = (1300, 900)
    for name in ("a_td.h5", "a_td.dat", "evt2.raw", "evt3.raw"):
        WRITERS[name](tmp_path / name, events)
        assert (read(tmp_path / name)[:, :2] == (1300, 900)).all(axis=1).sum() == 1


@pytest.mark.parametrize("name", ["evt2.raw", "evt3.raw"])
def test_boxes_of_a_raw_file_count_from_its_first_high_time(tmp_path: Path, name: str) -> None:
    events = make_events(duration_us=1_000_000, start_us=7_000_000)
    WRITERS[name](tmp_path / name, events)
    start_us = Recording(tmp_path / name, SENSOR_HW).clock_start_us
    assert 0 <= events[0, 3] - start_us < 64 if name == "evt2.raw" else 4096 <= events[0, 3] - start_us < 8192


def test_boxes_of_an_aedat4_file_count_from_its_first_event(tmp_path: Path) -> None:
    events = make_events(duration_us=1_000_000, start_us=1_589_163_147_000_000)
    write_aedat4(tmp_path / "a.aedat4", events)
    assert Recording(tmp_path / "a.aedat4", SENSOR_HW).clock_start_us == events[0, 3]


@pytest.mark.parametrize(("start_us", "clock_start_us"), [(0, 0), (60_000_000, 0), (10**15, 10**15 + 13)])
def test_boxes_of_an_hdf5_file_count_from_0_unless_it_has_unix_times(
    tmp_path: Path, start_us: int, clock_start_us: int
) -> None:
    write_hdf5(tmp_path / "a.h5", make_events(duration_us=1_000_000, start_us=start_us))
    assert Recording(tmp_path / "a.h5", SENSOR_HW).clock_start_us == clock_start_us


def cut(path: Path, num_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:-num_bytes])


@pytest.mark.parametrize(("name", "num_bytes"), [("a_td.h5", 100), ("a_td.dat", 3), ("evt2.raw", 2), ("evt3.raw", 1)])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, name: str, num_bytes: int) -> None:
    WRITERS[name](tmp_path / name, make_events())
    cut(tmp_path / name, num_bytes)
    with pytest.raises(UserError, match=rf"{name} is damaged or cut short"):
        read(tmp_path / name)


def test_an_aedat4_file_cut_within_a_packet_is_named(tmp_path: Path) -> None:
    write_aedat4(tmp_path / "a.aedat4", make_events())
    data = (tmp_path / "a.aedat4").read_bytes()
    (tmp_path / "a.aedat4").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="aedat4 is damaged or cut short"):
        read(tmp_path / "a.aedat4")


def write_hdf5_with(change: Callable[[h5py.Group], None]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        write_hdf5(path, make_events())
        with h5py.File(path, "r+") as file:
            change(file["events"])

    return write


def lose_x(events: h5py.Group) -> None:
    del events["x"]


def shorten_y(events: h5py.Group) -> None:
    del events["y"]
    events["y"] = np.zeros(3, np.uint16)


def times_in_seconds(events: h5py.Group) -> None:
    del events["t"]
    events["t"] = np.linspace(0, 1, 4000)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("no_x.h5", write_hdf5_with(lose_x), "no events/x"),
        ("short.h5", write_hdf5_with(shorten_y), "differ in length"),
        ("float.h5", write_hdf5_with(times_in_seconds), "has fractions.*time_unit=s"),
        ("text.h5", lambda path: path.write_text("events"), "damaged"),
        ("text.raw", lambda path: path.write_text("events"), "names no encoding"),
        ("text.dat", lambda path: path.write_text("events"), "no DAT of version 2"),
        ("old.dat", lambda path: write_dat(path, make_events(), b"% Version 1\n"), "no DAT of version 2"),
        ("text.aedat4", lambda path: path.write_text("events"), "damaged"),
        (
            "huge.dat",
            lambda path: write_dat(path, make_events(), b"% Height 65535\n% Width 65535\n"),
            r"claims a sensor of \(65535, 65535\)",
        ),
        ("events.bin", lambda path: path.write_text("events"), "not from .bin"),
        ("absent.h5", lambda path: None, "not found"),
    ],
)
def test_a_faulty_file_is_named_with_its_fault(
    tmp_path: Path, name: str, write: Callable[[Path], None], message: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}.*{message}"):
        list(open_event_file(tmp_path / name, Reading()).pieces(common.PIECE_EVENTS))
