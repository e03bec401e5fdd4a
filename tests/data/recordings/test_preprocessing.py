"""From a recording and its boxes to a sequence folder: RVT's numbers, files and leftovers of runs before."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from config.errors import UserError
from config.loading import load_dataset_config
from data.claims import BusyError
from data.layout import FrameFiles
from data.recordings.preprocessing import preprocess_recording
from data.recordings.usable import RecordingFiles, Report
from data.sequence import Sequence
from tests.recordings import (
    COMPACT,
    FULL,
    HALF,
    REPRESENTATION,
    files_below,
    read_frames,
    small_dataset,
    write_recording,
)

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize(("golden_name", "dataset"), [("preproc_rvt", "gen4_1mpx"), ("preproc_etram", "gen4")])
@pytest.mark.parametrize(
    ("split", "name"), [("train", "moorea_open_000"), ("val", "moorea_open_001"), ("test", "moorea_open_002")]
)
def test_equals_rvts_script(tmp_path: Path, golden_name: str, dataset: str, split: str, name: str) -> None:
    raw = GOLDEN / "raw_gen4" / split
    files = RecordingFiles(split, name, raw / f"{name}_td.h5", raw / f"{name}_bbox.npy")
    report = preprocess_recording(tmp_path, load_dataset_config([f"dataset={dataset}"]), files, layout="both")
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
        tmp_path, small_dataset("dataset.downsample_by_factor_2=true"), write_recording(tmp_path / "raw"), layout="rvt"
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
        "train",
        "a",
        num_frames=18,
        num_labelled=9,
        boxes_per_class={"car": 9},
        num_events=1000,
        dropped_boxes={"before the first labelled frame": 1},
        num_boxes_read=10,
        num_events_in_frames=901,  # those of 0 to 900 ms
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


@pytest.mark.parametrize("first", ["compact", "rvt"])
def test_a_layout_that_is_asked_for_later_is_added_as_if_written_at_once(tmp_path: Path, first: FrameFiles) -> None:
    files, names = write_recording(tmp_path / "raw"), {"compact": {COMPACT}, "rvt": {FULL}, "both": {COMPACT, FULL}}
    for layout in ("compact", "rvt", "both"):
        preprocess_recording(tmp_path / layout, small_dataset(), files, layout=layout)
        written = files_below(tmp_path / layout / "train" / "a" / REPRESENTATION)
        assert {name for name in written if name.endswith(".h5")} == names[layout]
    files.events.unlink()  # what is there is converted
    assert preprocess_recording(tmp_path / first, small_dataset(), files, layout="both").num_files_added == 1
    assert files_below(tmp_path / first) == files_below(tmp_path / "both")


def test_frames_of_a_size_between_lie_beside_them_with_all_events(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw")
    preprocess_recording(tmp_path, small_dataset(), files)
    between = small_dataset("dataset.frame_hw=[12,18]")
    preprocess_recording(tmp_path, between, files)
    frames = Sequence(tmp_path / "train" / "a", between).frames(0, 18)
    assert frames.shape == (18, 20, 12, 18)
    assert frames.sum(axis=(1, 2, 3), dtype=int).tolist() == [51] * 18


SIZES = [(10, 15), (12, 18), (20, 30)]


def test_sizes_made_in_one_pass_are_the_files_of_single_runs(tmp_path: Path) -> None:
    """Also where one of them was there before: that one is left alone, and the others join it."""
    files, dataset = write_recording(tmp_path / "raw"), small_dataset()
    for size in SIZES:
        preprocess_recording(tmp_path / "single", small_dataset(f"dataset.frame_hw={list(size)}"), files, layout="both")
    preprocess_recording(tmp_path / "later", dataset, files, sizes=SIZES[1:2], layout="rvt")
    reports = [
        preprocess_recording(tmp_path / out, dataset, files, sizes=SIZES, layout="both")
        for out in ("once", "later", "once")
    ]
    assert files_below(tmp_path / "once") == files_below(tmp_path / "later") == files_below(tmp_path / "single")
    assert [(report.was_present, report.num_files_added) for report in reports] == [(False, 0), (False, 1), (True, 0)]


def test_a_size_is_not_added_to_one_of_other_settings(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw")
    preprocess_recording(tmp_path, small_dataset("dataset.representation.count_cutoff=5"), files)
    before = files_below(tmp_path / "train")
    with pytest.raises(UserError, match="other settings"):
        preprocess_recording(tmp_path, small_dataset(), files, sizes=SIZES)
    assert files_below(tmp_path / "train") == before


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


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(UserError, match=r"out/train/a cannot be written"):
        preprocess_recording(tmp_path / "out", small_dataset(), write_recording(tmp_path / "raw"))


def test_a_second_command_on_the_same_sequence_takes_nothing_from_the_first(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw")
    frames: Iterator[int] = iter(range(18))

    def come_second() -> None:
        if next(frames) == 5:
            with pytest.raises(BusyError, match=f"out/train/a is being written by process {os.getpid()} on "):
                preprocess_recording(tmp_path / "out", small_dataset(), files)

    assert preprocess_recording(tmp_path / "out", small_dataset(), files, come_second).num_frames == 18
    assert preprocess_recording(tmp_path / "out", small_dataset(), files, wait=True).was_present
    assert not list((tmp_path / "out" / ".partial").rglob("*.*"))


def test_remains_of_a_killed_run_are_replaced(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw")
    remains = tmp_path / "out" / ".partial" / "train" / "a" / "tmp12345" / "a" / "labels_v2"
    remains.mkdir(parents=True)
    (remains / "labels.npz").write_bytes(b"half")
    assert preprocess_recording(tmp_path / "out", small_dataset(), files).num_frames == 18
    assert not remains.exists()
    assert len(np.load(tmp_path / "out" / "train" / "a" / "labels_v2" / "labels.npz")["labels"]) == 9
