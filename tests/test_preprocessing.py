"""From a recording and its boxes to a sequence folder: RVT's numbers, and faults that leave nothing half-done."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import eventcv
import h5py
import numpy as np
import pytest

from config.errors import UserError
from config.loading import load_dataset_config
from config.schema import DatasetConfig
from data.frame_store import FrameStore, compact_path
from data.labels import BOX_DTYPE
from data.preprocessing import RecordingFiles, Report, preprocess_recording
from data.recording import BACKWARDS, OUTSIDE

GOLDEN = Path(__file__).parent / "golden"
REPRESENTATION = Path("event_representations_v2/stacked_histogram_dt=50_nbins=10")
FULL, HALF = "event_representations.h5", "event_representations_ds2_nearest.h5"


def small_dataset(*overrides: str) -> DatasetConfig:
    return load_dataset_config(["dataset=davis346", "dataset.resolution_hw=[20,30]", *overrides])


def write_recording(
    folder: Path, seconds: float = 1.0, label_rate_hz: float = 10, file: str = "a_td.h5", p_offset: int = 0
) -> RecordingFiles:
    """An event every ms, walking over the sensor; a car of 8 x 8 pixels at every label time."""
    t_us = np.arange(0, round(seconds * 1e6), 1000)
    columns = {
        "x": t_us // 1000 % 30,
        "y": t_us // 1000 % 20,
        "p": t_us // 1000 % 2 * (1 + p_offset) - p_offset,
        "t": t_us,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / file, "w") as events:
        for key, column in columns.items():
            events[f"events/{key}"] = column
    boxes = np.zeros(round(seconds * label_rate_hz), BOX_DTYPE)
    boxes["t"] = np.rint(np.arange(len(boxes)) * 1e6 / label_rate_hz)
    boxes["x"], boxes["y"], boxes["w"], boxes["h"], boxes["class_id"] = 5, 6, 8, 8, 2
    np.save(folder / "a_bbox.npy", boxes)
    return RecordingFiles("train", "a", folder / file, folder / "a_bbox.npy")


def read_frames(sequence: Path, name: str) -> np.ndarray:
    """Of the reference's file, after a check that the compact one has the same."""
    with h5py.File(sequence / REPRESENTATION / name) as file:
        frames = file["data"][:]
    store = FrameStore(compact_path(sequence / REPRESENTATION / name))
    compact = np.empty_like(frames)
    store.read(0, len(store), compact)
    assert np.array_equal(compact, frames)
    return frames


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("golden_name", "dataset"), [("preproc_rvt", "gen4_1mpx"), ("preproc_etram", "gen4")])
@pytest.mark.parametrize(
    ("split", "name"), [("train", "moorea_open_000"), ("val", "moorea_open_001"), ("test", "moorea_open_002")]
)
def test_equals_rvts_script(tmp_path: Path, golden_name: str, dataset: str, split: str, name: str) -> None:
    raw = GOLDEN / "raw_gen4" / split
    files = RecordingFiles(split, name, raw / f"{name}_td.h5", raw / f"{name}_bbox.npy")
    report = preprocess_recording(tmp_path, load_dataset_config([f"dataset={dataset}"]), files)
    golden = np.load(GOLDEN / f"{golden_name}.npz")
    expected = {
        key.removeprefix(f"{split}__{name}__"): golden[key] for key in golden if key.startswith(f"{split}__{name}")
    }
    sequence = tmp_path / split / name
    if not expected:  # no box is left: RVT writes nothing, either
        assert (report.num_frames, sequence.exists()) == (0, False)
        return
    labels = np.load(sequence / "labels_v2" / "labels.npz")
    for field in expected["labels"].dtype.names:
        assert np.array_equal(labels["labels"][field], expected["labels"][field])
    assert np.array_equal(labels["objframe_idx_2_label_idx"], expected["objframe_idx_2_label_idx"])
    for path, key in (
        (Path("labels_v2/timestamps_us.npy"), "label_timestamps_us"),
        (REPRESENTATION / "timestamps_us.npy", "repr_timestamps_us"),
        (REPRESENTATION / "objframe_idx_2_repr_idx.npy", "objframe_idx_2_repr_idx"),
    ):
        array = np.load(sequence / path)
        assert array.dtype == np.int64
        assert np.array_equal(array, expected[key])
    frames = read_frames(sequence, HALF)
    assert frames.shape == tuple(expected["data_shape"])
    assert hashlib.sha256(frames.tobytes()).digest() == expected["data_sha256"].tobytes()


def test_the_frames_file_is_stored_as_rvt_stores_it_with_checksums(tmp_path: Path) -> None:
    preprocess_recording(
        tmp_path, small_dataset("dataset.downsample_by_factor_2=true"), write_recording(tmp_path / "raw")
    )
    with (
        h5py.File(tmp_path / "train" / "a" / REPRESENTATION / HALF) as ours,
        h5py.File(GOLDEN / "peer_written_val_event_representations_ds2_nearest.h5") as theirs,
    ):
        mine, reference = ours["data"], theirs["data"]
        assert (mine.dtype, mine.maxshape[0], mine.chunks[0]) == (reference.dtype, None, 1)
        assert mine.chunks[1:] == mine.shape[1:]
        blosc_mine, blosc_reference = (data._filters["32001"] for data in (mine, reference))
        assert blosc_mine[4:7] == blosc_reference[4:7]  # level, shuffle, codec
        assert mine.fletcher32


def test_report_and_frames_of_a_recording_that_can_be_read_off(tmp_path: Path) -> None:
    """Labels lie at 100 ... 900 ms; a window ends at each and half-way between, and holds 51 events, ends included."""
    report = preprocess_recording(tmp_path, small_dataset(), write_recording(tmp_path / "raw"))
    frames = read_frames(tmp_path / "train" / "a", FULL)
    assert frames.shape == (18, 20, 20, 30)
    assert frames.sum(axis=(1, 2, 3), dtype=int).tolist() == [51] * 18
    assert report == Report(
        "train", "a", 18, 9, {"car": 9}, 1000, {}, {"between labelled frames, or before the first": 1}
    )


def test_polarity_of_minus_one_is_zero(tmp_path: Path) -> None:
    frames = []
    for p_offset in (0, 1):
        files = write_recording(tmp_path / f"raw{p_offset}", p_offset=p_offset)
        preprocess_recording(tmp_path / f"{p_offset}", small_dataset(), files)
        frames.append(read_frames(tmp_path / f"{p_offset}" / "train" / "a", FULL))
    assert np.array_equal(*frames)


def test_both_resolutions_exist_side_by_side(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw")
    half = small_dataset("dataset.downsample_by_factor_2=true")
    preprocess_recording(tmp_path, half, files)
    before = files_below(tmp_path / "train")
    preprocess_recording(tmp_path, small_dataset(), files)
    after = files_below(tmp_path / "train")
    assert {path: after[path] for path in before} == before
    full = read_frames(tmp_path / "train" / "a", FULL)
    assert np.array_equal(read_frames(tmp_path / "train" / "a", HALF), full[:, :, 1::2, 1::2])


def test_a_finished_sequence_is_left_alone_and_reported(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw")
    first = preprocess_recording(tmp_path, small_dataset(), files)
    before = files_below(tmp_path / "train")
    files.events.unlink()
    second = preprocess_recording(tmp_path, small_dataset(), files)
    assert files_below(tmp_path / "train") == before
    assert (first.was_present, second.was_present) == (False, True)
    second.was_present = False
    assert second == first


def test_a_sequence_finished_with_other_settings_is_an_error(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw")
    preprocess_recording(tmp_path, small_dataset(), files)
    with pytest.raises(UserError, match="other settings"):
        preprocess_recording(tmp_path, small_dataset("dataset.representation.count_cutoff=5"), files)
    other_labels = small_dataset("dataset.downsample_by_factor_2=true", "dataset.preprocessing.label_interval_ms=200")
    with pytest.raises(UserError, match="other labels or times"):
        preprocess_recording(tmp_path, other_labels, files)
    assert not (tmp_path / "train" / "a" / REPRESENTATION / HALF).exists()


def test_a_sequence_of_rvts_own_script_counts_as_finished(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw")
    preprocess_recording(tmp_path, small_dataset(), files)
    with h5py.File(tmp_path / "train" / "a" / REPRESENTATION / FULL, "r+") as file:
        file.attrs.clear()
    assert preprocess_recording(tmp_path, small_dataset(), files) == Report("train", "a", was_present=True)


def test_an_interrupted_sequence_leaves_nothing_and_can_be_done_again(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw")
    frames: Iterator[int] = iter(range(3))

    def stop_after_three_frames() -> None:
        if next(frames, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess_recording(tmp_path / "out", small_dataset(), files, stop_after_three_frames)
    assert files_below(tmp_path / "out") == {}
    assert preprocess_recording(tmp_path / "out", small_dataset(), files).num_frames == 18


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(UserError, match=r"out/train/a cannot be written"):
        preprocess_recording(tmp_path / "out", small_dataset(), write_recording(tmp_path / "raw"))


def test_remains_of_a_killed_run_are_replaced(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw")
    remains = tmp_path / "out" / ".partial" / "train" / "a.12345" / "labels_v2"
    remains.mkdir(parents=True)
    (remains / "labels.npz").write_bytes(b"half")
    assert preprocess_recording(tmp_path / "out", small_dataset(), files).num_frames == 18
    assert not remains.exists()
    assert len(np.load(tmp_path / "out" / "train" / "a" / "labels_v2" / "labels.npz")["labels"]) == 9


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


def let_time_jump(files: RecordingFiles) -> None:
    with h5py.File(files.events, "r+") as file:
        file["events/t"][10] = 10**9


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
        (let_time_jump, r"a_td.h5 has 989 events with a time before an earlier one's among 1,000"),
        (stamp_boxes_in_nanoseconds, r"a_bbox.npy has a box .* hours after.*in us"),
        (move_boxes_to_another_clock, r"a_td.h5 has no events up to its first box"),
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
