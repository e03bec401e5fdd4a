"""Existing frames files get a compact store that training reads instead."""

from pathlib import Path

import numpy as np
import pytest

from config.errors import UserError
from config.loading import load_dataset_config
from data.frame_files import add_frame_files
from data.frame_store import FrameStore
from data.layout import SequenceLayout, compact_path
from data.sequence import Hdf5Frames, Sequence
from scripts import preprocess
from scripts.compact_frames import main
from tests.conftest import FRAMES_FILE, REPRESENTATION, write_sequence

DATASET = ["dataset=gen4", "dataset.resolution_hw=[16,24]"]


@pytest.fixture
def frames_paths(tmp_path: Path) -> list[Path]:
    """Two sequences of 3 and 5 frames; frame i has the value i + 1 everywhere."""
    write_sequence(tmp_path / "train" / "a", 3, {1: []})
    write_sequence(tmp_path / "val" / "b", 5, {1: []})
    return [tmp_path / split / REPRESENTATION / FRAMES_FILE for split in ("train/a", "val/b")]


def test_all_sequences_are_converted_and_read_as_before(
    frames_paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), *DATASET, "workers=2"]) == 0
    assert "2 written, 0 were there already" in capsys.readouterr().out
    for path in frames_paths:
        path.unlink()
    frames = Sequence(tmp_path / "val" / "b", load_dataset_config(DATASET)).frames(0, 5)
    assert (frames == np.arange(1, 6)[:, None, None, None]).all()


def test_a_store_that_is_there_is_left_alone_and_half_a_one_replaced(frames_paths: list[Path]) -> None:
    target = compact_path(frames_paths[0])
    layout = SequenceLayout.of(target.parents[2], load_dataset_config(DATASET))
    assert [add_frame_files(layout, files="compact") for _ in range(2)] == [1, 0]
    target.write_bytes(target.read_bytes()[:300])
    assert add_frame_files(layout, files="compact") == 1
    assert len(FrameStore(target)) == 3


def test_a_damaged_frames_file_is_named_and_leaves_no_store(
    frames_paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames_paths[0].write_bytes(b"nothing")
    assert main([str(tmp_path), *DATASET]) == 2
    assert f"error: {frames_paths[0]}" in capsys.readouterr().err
    assert [compact_path(path).exists() for path in frames_paths] == [False, True]


def test_a_folder_without_frames_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), *DATASET]) == 2
    assert "Check the path, and dataset=" in capsys.readouterr().err


def test_rvts_frames_files_come_back_from_compact_stores(
    frames_paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever looks for one of them is told how."""
    for path in frames_paths:
        add_frame_files(SequenceLayout.of(path.parents[2], load_dataset_config(DATASET)), files="compact")
        path.unlink()
    with pytest.raises(UserError, match=r"only its compact copy\. scripts/compact_frames.py .* layout=rvt writes it"):
        Hdf5Frames(frames_paths[1])
    assert main([str(tmp_path), *DATASET, "layout=rvt"]) == 0
    assert main([str(tmp_path), *DATASET, "layout=both"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 written, 4 were there already"
    frames = np.empty((5, 20, 8, 12), np.uint8)
    Hdf5Frames(frames_paths[1]).read(0, 5, frames)
    assert (frames == np.arange(1, 6)[:, None, None, None]).all()


def test_another_layout_is_answered_with_the_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (main, lambda arguments: preprocess.main([str(tmp_path), *arguments])):
        assert command([str(tmp_path), *DATASET, "layout=all"]) == 2
        assert capsys.readouterr().err == "error: layout=all: compact, rvt or both\n"
