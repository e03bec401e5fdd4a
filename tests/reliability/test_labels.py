"""Damaged labels of preprocessed sequences: refused with file and row, or left out; whatever sequence has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from config.errors import UserError
from config.loading import load_dataset_config
from data.checks.dataset import check_dataset
from data.index import load_index
from tests.conftest import REPRESENTATION, write_sequence

FRAMES = "objframe_idx_2_repr_idx.npy"


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    """Labelled frames 1, 3 and 5 of 8, with two boxes each."""
    boxes = [(1, 4.0, 2.0, 10.0, 8.0), (2, 1.0, 1.0, 9.0, 9.0)]
    return write_sequence(tmp_path / "data" / "train" / "sequence", 8, {i: boxes for i in (1, 3, 5)})


def load(sequence: Path) -> int:
    """Boxes that training would see."""
    dataset = load_dataset_config(
        ["dataset=gen4", f"dataset.path={sequence.parents[1]}", "dataset.resolution_hw=[16,24]"]
    )
    check_dataset(dataset, thorough=True, splits=("train",))  # never raises
    return int(load_index(dataset, "train").class_counts.sum())


def change_boxes(sequence: Path, change: Callable[[dict], None]) -> None:
    path = sequence / "labels_v2" / "labels.npz"
    with np.load(path) as file:
        content = {name: file[name].copy() for name in file.files}
    change(content)
    np.savez(path, **content)


@pytest.mark.parametrize(("field", "value"), [("x", np.nan), ("w", np.inf), ("h", -5), ("x", 500), ("y", -500)])
def test_boxes_that_make_no_sense_are_left_out(sequence: Path, field: str, value: float) -> None:
    change_boxes(sequence, lambda content: content["labels"][field].__setitem__(2, value))
    assert load(sequence) == 5


@pytest.mark.parametrize(
    ("frames", "message"),
    [([5, 3, 1], "row 1"), ([1, 3, 3], "row 2"), ([-1, 3, 5], "row 0"), ([1, 3, 50], "frame 50 has labels")],
)
def test_labelled_frames_that_do_not_fit_are_refused(sequence: Path, frames: list[int], message: str) -> None:
    np.save(sequence / REPRESENTATION / FRAMES, np.array(frames))
    with pytest.raises(UserError, match=rf"{sequence.name}.*{message}.*preprocess"):
        load(sequence)


def test_boxes_of_unsorted_frames_are_refused(sequence: Path) -> None:
    change_boxes(sequence, lambda content: content["objframe_idx_2_label_idx"].__setitem__(slice(None), [0, 4, 2]))
    with pytest.raises(UserError, match=r"labels.npz.*row 2"):
        load(sequence)


@pytest.mark.parametrize("length", [0, 10, 300, -100])
def test_files_that_are_cut_short_are_refused(sequence: Path, length: int) -> None:
    for path in (sequence / "labels_v2" / "labels.npz", sequence / REPRESENTATION / FRAMES):
        content = path.read_bytes()
        path.write_bytes(content[: min(length, len(content) - 20)])
        with pytest.raises(UserError, match=f"{path.name} is missing or damaged"):
            load(sequence)
        path.write_bytes(content)
