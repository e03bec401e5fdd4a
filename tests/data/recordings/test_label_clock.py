"""Clocks of events and boxes: what fits is read the same, what does not is refused with the setting that mends it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from config.errors import UserError
from data.boxes import BOX_DTYPE
from data.recordings.label_clock import join_stamps
from data.recordings.preprocessing import preprocess_recording
from data.recordings.usable import RecordingFiles, Report
from tests.recordings import FULL, files_below, read_frames, small_dataset, write_recording

Change = Callable[[np.ndarray], np.ndarray]
UNIX_US = 1_600_000_000_000_000


def same(t: np.ndarray) -> np.ndarray:
    return t


def recording(folder: Path, events: Change = same, boxes: Change = same, seconds: float = 4.0) -> RecordingFiles:
    """The small recording with changed times; its boxes may get a float field for them."""
    files = write_recording(folder, seconds)
    with h5py.File(files.events, "r+") as file:
        t = file["events/t"][:]
        del file["events/t"]
        file["events/t"] = events(t)
    content = np.load(files.boxes)[1:]
    t = boxes(content["t"])
    dtype = [("t", t.dtype), *((name, BOX_DTYPE[name]) for name in BOX_DTYPE.names[1:])]
    changed = np.zeros(len(content), dtype)
    for name in BOX_DTYPE.names:
        changed[name] = t if name == "t" else content[name]
    np.save(files.boxes, changed)
    return files


def outcome(tmp_path: Path, files: RecordingFiles, *settings: str) -> tuple[np.ndarray, np.ndarray, Report]:
    report = preprocess_recording(tmp_path / "out", small_dataset(*settings), files)
    sequence = tmp_path / "out" / "train" / "a"
    return read_frames(sequence, FULL), np.load(sequence / "labels_v2" / "labels.npz")["labels"], report


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    tmp_path = tmp_path_factory.mktemp("sound")
    return outcome(tmp_path, recording(tmp_path / "raw"))[:2]


MINUTE_30_US = 1_800_000_000
REFUSED: list[tuple[Change, Change, str]] = [
    (lambda t: t * 1000, same, "dataset.preprocessing.time_unit=ns"),
    (lambda t: t / 1000, same, "dataset.preprocessing.time_unit=ms"),
    (lambda t: t / 1e6, same, "dataset.preprocessing.time_unit=s"),
    (same, lambda t: t / 1e6, "dataset.preprocessing.label_time_unit=s"),
    (same, lambda t: t // 1000, "dataset.preprocessing.label_time_unit=ms"),
    (same, lambda t: t * 1000, "dataset.preprocessing.label_time_unit=ns"),
    (lambda t: t + MINUTE_30_US, same, "dataset.preprocessing.label_clock=start"),
    (lambda t: t + 2_000_000, same, "dataset.preprocessing.label_clock=start"),
    (lambda t: t + 600_000, same, "dataset.preprocessing.label_clock=start"),
    (
        lambda t: t + MINUTE_30_US,
        lambda t: t // 1000,
        "dataset.preprocessing.label_time_unit=ms dataset.preprocessing.label_clock=start",
    ),
    (lambda t: t + UNIX_US, lambda t: (t + UNIX_US) / 1e6, "dataset.preprocessing.label_time_unit=s"),
    (lambda t: t + UNIX_US, lambda t: t / 1e6, "dataset.preprocessing.label_time_unit=s"),
]


@pytest.mark.parametrize(("events", "boxes", "settings"), REFUSED)
def test_other_clocks_are_refused_with_both_spans_and_the_setting_that_mends_it(
    tmp_path: Path, events: Change, boxes: Change, settings: str, sound: tuple[np.ndarray, np.ndarray]
) -> None:
    files = recording(tmp_path / "raw", events, boxes)
    is_in_fractions = (events(np.arange(3)) % 1).any()  # which the reader of events refuses by itself
    with pytest.raises(UserError) as refusal:
        preprocess_recording(tmp_path / "out", small_dataset(), files)
    message = str(refusal.value)
    assert files_below(tmp_path / "out") == {}
    if not is_in_fractions:
        assert str(files.boxes) in message
        assert re.search(r"boxes at .* to .*, events at .* to .*; ", message)
        assert f"add {settings}" in message
    frames, labels, _ = outcome(tmp_path, files, *settings.split())
    assert np.array_equal(frames, sound[0])
    assert np.array_equal(labels["t"], sound[1]["t"])


@pytest.mark.parametrize(
    ("events", "boxes"),
    [
        (lambda t: t + UNIX_US, lambda t: t + UNIX_US),
        (lambda t: t + UNIX_US, same),
        (lambda t: t + UNIX_US, lambda t: np.concatenate([[UNIX_US - 1000], t[1:] + UNIX_US])),
        (same, lambda t: t.astype(np.float64)),
        (same, lambda t: t.astype(np.uint64)),
        (same, lambda t: t.astype(">i4")),
    ],
)
def test_clocks_that_fit_are_understood(
    tmp_path: Path, events: Change, boxes: Change, sound: tuple[np.ndarray, np.ndarray]
) -> None:
    frames, labels, report = outcome(tmp_path, recording(tmp_path / "raw", events, boxes))
    lost = len(sound[1]) - len(labels)
    assert lost == report.dropped_boxes.get("before the first labelled frame", 0)
    assert np.array_equal(labels["t"], sound[1]["t"][lost:])
    assert np.array_equal(frames, sound[0])
    assert bool(report.notes) == (events is not same)  # what was taken for the start is said


@pytest.mark.parametrize("wrapped_boxes", [True, False])
def test_label_times_of_32_bits_go_on_as_the_events_do(
    tmp_path: Path, wrapped_boxes: bool, sound: tuple[np.ndarray, np.ndarray]
) -> None:
    """The counter runs over in the middle of the recording; labels have its stamps, or those of 64 bits."""
    shift = 2**32 - 2_000_000
    files = recording(
        tmp_path / "raw",
        lambda t: ((t + shift) % 2**32).astype(np.uint32),
        lambda t: (t + shift) % 2**32 if wrapped_boxes else t + shift,
    )
    frames, labels, report = outcome(tmp_path, files)
    assert np.array_equal(labels["t"], sound[1]["t"])
    assert np.array_equal(frames, sound[0])
    assert any("start again at 2^32" in note for note in report.notes) == wrapped_boxes


@pytest.mark.parametrize(("clock", "first_us"), [("recording", 60_000_000), ("start", 3_760_000_000)])
def test_where_both_starts_fit_a_setting_says_which(tmp_path: Path, clock: str, first_us: int) -> None:
    """Events from 3,700 s to 7,999 s, one in a second; labels at 3,760 s to 4,140 s."""
    files = recording(tmp_path / "raw", lambda t: 3_700_000_000 + t * 1075, lambda t: 3_750_000_000 + t * 100)
    with pytest.raises(UserError, match=r"both fit\. Say which: dataset\..*label_clock=start, or recording"):
        preprocess_recording(tmp_path / "out", small_dataset(), files)
    dataset = small_dataset(
        f"dataset.preprocessing.label_clock={clock}", "dataset.representation.window_ms=1100",
        "dataset.preprocessing.label_interval_ms=10000",
    )  # fmt: skip
    preprocess_recording(tmp_path / "out", dataset, files)
    (times,) = (tmp_path / "out" / "train" / "a").glob("labels_v2/timestamps_us.npy")
    assert np.load(times)[0] == first_us


def test_a_setting_is_believed_though_the_spans_look_odd(tmp_path: Path) -> None:
    """Boxes in the first thousandth of a recording only, or a scene that is still at first."""
    early = recording(tmp_path / "early", lambda t: t * 1000, seconds=0.9)
    with pytest.raises(UserError, match=r"say so by dataset\.preprocessing\.label_time_unit=us"):
        preprocess_recording(tmp_path / "out", small_dataset(), early)
    with pytest.raises(UserError, match="no events in"):  # one event a second: not odd, but empty
        preprocess_recording(tmp_path / "out", small_dataset("dataset.preprocessing.label_time_unit=us"), early)
    silent = recording(
        tmp_path / "silent", lambda t: np.where(t < 1_000_000, 1_000_000, t), lambda t: t[0] + (t - t[0]) // 2
    )
    with pytest.raises(UserError, match=r"18 of its 39 times lie before .*say so by .*label_clock=recording"):
        preprocess_recording(tmp_path / "out", small_dataset(), silent)
    dataset = small_dataset("dataset.preprocessing.label_clock=recording")
    assert preprocess_recording(tmp_path / "out", dataset, silent).num_labelled == 20


def test_a_recording_that_is_cut_short_keeps_what_it_has(tmp_path: Path) -> None:
    files = recording(tmp_path / "raw", boxes=lambda t: np.linspace(100_000, 12_000_000, len(t)).astype(int))
    _, _, report = outcome(tmp_path, files)
    assert report.dropped_boxes["after the last labelled frame"] > 20
    assert report.num_labelled > 5


def test_labelled_frames_without_events_are_a_fault_if_they_are_most(tmp_path: Path) -> None:
    files = recording(tmp_path / "raw", lambda t: np.where(t < 3_900_000, t // 1_950_000 * 1_950_000, t))
    with pytest.raises(UserError, match=r"a_td\.h5 has no events in 3\d of the 39 labelled frames"):
        preprocess_recording(tmp_path / "out", small_dataset(), files)
    assert files_below(tmp_path / "out") == {}


def test_events_in_frames_are_counted_once_each(tmp_path: Path) -> None:
    """Those up to the last label at 1.96 s; at 25 Hz windows of 50 ms lie 40 ms apart."""
    files = write_recording(tmp_path / "raw", 2.0, label_rate_hz=25)
    report = preprocess_recording(tmp_path / "out", small_dataset(), files)
    assert (report.num_events, report.num_events_in_frames) == (2000, 1941)


def test_boxes_of_one_frame_get_one_time() -> None:
    def joined(*t: int) -> tuple[int, list[int]]:
        boxes = np.zeros(len(t), BOX_DTYPE)
        boxes["t"] = t
        return join_stamps(boxes, 2000), boxes["t"].tolist()

    assert joined(0, 300, 1900, 100_000, 100_000) == (2, [0, 0, 0, 100_000, 100_000])
    assert joined(0, 2000, 4000) == (0, [0, 2000, 4000])
    fast = list(range(0, 20_000, 1000))  # labels at 1 kHz are no boxes of one frame
    assert joined(*fast, 50_000, 50_500) == (1, [*fast, 50_000, 50_000])
    assert joined() == (0, [])


def test_all_objects_of_a_frame_stay_though_their_stamps_differ(
    tmp_path: Path, sound: tuple[np.ndarray, np.ndarray]
) -> None:
    files = recording(tmp_path / "raw")
    boxes = np.load(files.boxes)
    others = boxes.copy()
    others["t"] += 300
    others["x"] += 9
    np.save(files.boxes, np.concatenate([boxes, others]))
    frames, labels, report = outcome(tmp_path, files)
    assert (len(labels), report.moved_boxes, report.num_labelled) == (78, 39, 39)
    assert np.array_equal(frames, sound[0])
    assert np.array_equal(np.unique(labels["t"]), sound[1]["t"])


def test_where_boxes_went_if_none_remains(tmp_path: Path) -> None:
    files = recording(tmp_path / "raw")
    boxes = np.load(files.boxes)
    boxes["class_id"][:30], boxes["t"][30:] = 7, 99_000
    np.save(files.boxes, boxes)
    report = preprocess_recording(tmp_path / "out", small_dataset(), files)
    assert (report.num_frames, report.num_boxes_read) == (0, 39)
    reasons = {"of class id 7, not in class_ids": 30, "before 100.0 ms (dataset.preprocessing.first_label_ms)": 9}
    assert report.dropped_boxes == reasons


def test_labels_that_never_come_back_into_the_rhythm_are_told(tmp_path: Path) -> None:
    """Half an interval is lost in the middle: RVT uses none of the labels behind it, which nobody would notice."""
    files = recording(tmp_path / "raw", boxes=lambda t: np.where(t > 2_000_000, t + 50_000, t))
    _, labels, report = outcome(tmp_path, files)
    assert labels["t"].max() == 2_000_000
    (note,) = report.notes
    assert "18 of 39 label times, from 2.250 s on, are no multiple of the interval" in note
    assert outcome(tmp_path / "b", recording(tmp_path / "sound"))[2].notes == []


def test_boxes_of_a_larger_sensor_are_refused(tmp_path: Path) -> None:
    files = recording(tmp_path / "raw")
    boxes = np.load(files.boxes)
    boxes["x"][:20] *= 10
    np.save(files.boxes, boxes)
    with pytest.raises(UserError, match=r"20 of 39 boxes outside a sensor of \(20, 30\).* Check "):
        preprocess_recording(tmp_path / "out", small_dataset(), files)
