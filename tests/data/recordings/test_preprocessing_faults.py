"""Recordings and boxes with faults: named, or counted, and nothing is left half-done."""

from collections.abc import Callable
from pathlib import Path

import eventcv
import h5py
import numpy as np
import pytest

from config.errors import UserError
from data.recordings.cleaning import BACKWARDS, LEAPS, OUTSIDE
from data.recordings.preprocessing import preprocess_recording
from data.recordings.usable import RecordingFiles
from tests.recordings import FULL, files_below, read_frames, small_dataset, write_recording


def truncate(files: RecordingFiles) -> None:
    files.events.write_bytes(files.events.read_bytes()[:-2000])


def lose_boxes(files: RecordingFiles) -> None:
    files.boxes.unlink()


def move_events_off_the_sensor(files: RecordingFiles) -> None:
    with h5py.File(files.events, "r+") as file:
        file["events/x"][:600] += 1000


def move_boxes_to_another_clock(files: RecordingFiles) -> None:
    boxes = np.load(files.boxes)
    boxes["t"] += 10**9
    np.save(files.boxes, boxes)


def stamp_boxes_in_nanoseconds(files: RecordingFiles) -> None:
    boxes = np.load(files.boxes)
    boxes["t"] += 10**18
    np.save(files.boxes, boxes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"a_td.h5 is damaged or cut short"),
        (lose_boxes, r"a_bbox.npy not found"),
        (
            move_events_off_the_sensor,
            r"a_td.h5 has 600 events outside the sensor among 1,000. Check dataset.resolution_hw",
        ),
        (
            stamp_boxes_in_nanoseconds,
            r"a_bbox.npy: its times do not fit .*events at 0 us to 999.000 ms",
        ),
        (move_boxes_to_another_clock, r"boxes at 1,000.000 s \(16.7 min\) .*0 of its 10 times lie among the events'"),
    ],
)
def test_a_faulty_recording_is_named_and_leaves_nothing(
    tmp_path: Path, damage: Callable[[RecordingFiles], None], message: str
) -> None:
    files = write_recording(tmp_path / "raw")
    damage(files)
    with pytest.raises(UserError, match=message):
        preprocess_recording(tmp_path / "out", small_dataset(), files)
    assert files_below(tmp_path / "out") == {}


def test_faults_of_single_events_are_counted(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw")
    with h5py.File(files.events, "r+") as file:
        file["events/y"][5] = 33014
        file["events/t"][10] = 0
    report = preprocess_recording(tmp_path, small_dataset(), files)
    assert report.events_by_fault == {OUTSIDE: 1, BACKWARDS: 1}


def test_one_garbage_time_costs_its_event_alone(tmp_path: Path) -> None:
    expected = write_recording(tmp_path / "sound")
    preprocess_recording(tmp_path / "sound", small_dataset(), expected)
    files = write_recording(tmp_path / "raw")
    with h5py.File(files.events, "r+") as file:
        file["events/t"][610] = 10**9
    report = preprocess_recording(tmp_path, small_dataset(), files)
    assert report.events_by_fault == {LEAPS: 1}
    frames, sound = (read_frames(out / "train" / "a", FULL) for out in (tmp_path, tmp_path / "sound"))
    assert (frames != sound).any(axis=(1, 2, 3)).sum() <= 1


def test_a_box_years_later_is_dropped_and_counted(tmp_path: Path) -> None:
    """Frames would be laid up to it: 2^55 us are 1,142 years."""
    files = write_recording(tmp_path / "raw")
    boxes = np.load(files.boxes)
    boxes["t"][-1] = 2**55
    np.save(files.boxes, boxes)
    report = preprocess_recording(tmp_path, small_dataset(), files)
    assert report.dropped_boxes["a day or more after the last event"] == 1
    assert report.num_frames == 16


def test_boxes_after_the_recordings_end_are_dropped_and_counted(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw", seconds=5)
    with h5py.File(files.events, "r+") as file:
        columns = {key: file[f"events/{key}"][:2000] for key in "xypt"}
        del file["events"]
        for key, column in columns.items():
            file[f"events/{key}"] = column
    report = preprocess_recording(tmp_path, small_dataset(), files)
    last_us = np.load(tmp_path / "train" / "a" / "labels_v2" / "timestamps_us.npy")[-1]
    assert last_us == 3_000_000  # a second's grace, as a still scene has no events
    assert report.dropped_boxes["after the last labelled frame"] == 19
    assert report.num_labelled == 30


@pytest.mark.parametrize("boxes_start_us", [0, 7_000_000])
def test_boxes_count_from_the_start_of_a_file_with_a_running_clock_or_have_its_stamps(
    tmp_path: Path, boxes_start_us: int
) -> None:
    expected = write_recording(tmp_path / "expected")
    preprocess_recording(tmp_path / "expected", small_dataset(), expected)
    with h5py.File(expected.events) as file:
        events = np.stack([file[f"events/{key}"][:] for key in "xytp"], axis=1) + np.array([0, 0, 7_000_000, 0])
    boxes = np.load(expected.boxes)
    boxes["t"] += boxes_start_us
    files = RecordingFiles("train", "a", tmp_path / "a_td.aedat4", tmp_path / "a_bbox.npy")
    np.save(files.boxes, boxes)
    stream = eventcv.from_numpy(events.astype(np.uint64), sensor_size=(30, 20), time_unit="us")
    eventcv.save(stream, str(files.events))
    preprocess_recording(tmp_path, small_dataset(), files)
    frames = read_frames(tmp_path / "train" / "a", FULL)
    assert np.array_equal(frames, read_frames(tmp_path / "expected" / "train" / "a", FULL))
