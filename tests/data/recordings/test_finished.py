"""Sequences that are finished, and those that only look like it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from config.errors import UserError
from config.loading import load_dataset_config
from data.recordings.preprocessing import preprocess_recording
from data.recordings.usable import Report
from tests.recordings import COMPACT, FULL, REPRESENTATION, files_below, small_dataset, write_recording


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


def test_three_categories_of_etram_are_the_same_files_as_its_eight_classes(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw")
    eight, three = (
        load_dataset_config([f"dataset={name}", "dataset.resolution_hw=[20,30]"]) for name in ("gen4", "etram3")
    )
    preprocess_recording(tmp_path, eight, files)
    again = preprocess_recording(tmp_path, three, files)
    assert again.was_present
    assert again.boxes_per_class["bicycle"] > 0


def test_a_sequence_finished_with_other_settings_is_an_error(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw")
    preprocess_recording(tmp_path, small_dataset(), files)
    with pytest.raises(UserError, match="other settings"):
        preprocess_recording(tmp_path, small_dataset("dataset.representation.count_cutoff=5"), files)
    other_labels = small_dataset("dataset.downsample_by_factor_2=true", "dataset.preprocessing.label_interval_ms=200")
    with pytest.raises(UserError, match="other labels or times"):
        preprocess_recording(tmp_path, other_labels, files)
    assert not list((tmp_path / "train" / "a").rglob("*ds2*"))


def test_a_sequence_of_rvts_own_script_counts_as_finished(tmp_path: Path) -> None:
    files = write_recording(tmp_path / "raw")
    preprocess_recording(tmp_path, small_dataset(), files, layout="rvt")
    with h5py.File(tmp_path / "train" / "a" / REPRESENTATION / FULL, "r+") as file:
        file.attrs.clear()
    expected = Report("train", "a", was_present=True)
    assert preprocess_recording(tmp_path, small_dataset(), files, layout="rvt") == expected
    assert preprocess_recording(tmp_path, small_dataset(), files) == replace(expected, num_files_added=1)
    assert preprocess_recording(tmp_path, small_dataset(), files) == expected


@pytest.mark.parametrize(
    "damage",
    [
        lambda sequence: (sequence / "labels_v2" / "labels.npz").unlink(),
        lambda sequence: (sequence / "labels_v2" / "labels.npz").write_bytes(b"PK"),
        lambda sequence: (sequence / REPRESENTATION / "timestamps_us.npy").unlink(),
        lambda sequence: np.save(sequence / REPRESENTATION / "objframe_idx_2_repr_idx.npy", np.array([5, 99])),
    ],
)
def test_a_folder_that_is_not_whole_is_not_finished(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    """And what the message says mends it."""
    files, sequence = write_recording(tmp_path / "raw"), tmp_path / "train" / "a"
    preprocess_recording(tmp_path, small_dataset(), files)
    damage(sequence)
    with pytest.raises(UserError, match=f"Delete {sequence} and run this again"):
        preprocess_recording(tmp_path, small_dataset(), files)
    shutil.rmtree(sequence)
    assert not preprocess_recording(tmp_path, small_dataset(), files).was_present
    assert preprocess_recording(tmp_path, small_dataset(), files).was_present


def forget_the_rule(sequence: Path) -> None:
    """As a version did that measured intervals from the first labelled frame."""
    with h5py.File(sequence / REPRESENTATION / COMPACT, "r+") as file:
        settings = json.loads(file.attrs["settings"])
        del settings["preprocessing"]["label_interval_follows_rate"]
        file.attrs["settings"] = json.dumps(settings, sort_keys=True)
        del file.attrs["label_rule"]


def test_a_set_of_the_older_rule_is_finished_only_if_its_labelled_frames_are_todays(tmp_path: Path) -> None:
    files, sequence = write_recording(tmp_path / "raw"), tmp_path / "train" / "a"
    preprocess_recording(tmp_path, small_dataset(), files)
    forget_the_rule(sequence)
    assert preprocess_recording(tmp_path, small_dataset(), files).was_present
    boxes = np.load(files.boxes)
    boxes["t"][-1] += 50_000  # today no labelled frame, before one
    np.save(files.boxes, boxes)
    with pytest.raises(UserError, match=f"labelled frames by an older rule, not RVT's.* delete {sequence}"):
        preprocess_recording(tmp_path, small_dataset(), files)


@pytest.mark.parametrize("key", ["settings", "report"])
@pytest.mark.parametrize("value", ["{", '{"num_frames": "many"}', 3.5])
def test_damaged_attributes_of_a_finished_sequence_are_told(tmp_path: Path, key: str, value: object) -> None:
    files = write_recording(tmp_path / "raw", seconds=0.3)
    preprocess_recording(tmp_path, small_dataset(), files)
    with h5py.File(tmp_path / "train" / "a" / REPRESENTATION / COMPACT, "r+") as file:
        file.attrs[key] = value
    with pytest.raises(UserError, match=r"_compact\.h5 (tells damaged|was made with other) settings"):
        preprocess_recording(tmp_path, small_dataset(), files)
