"""Existing frames files get a compact store that training reads instead."""

from pathlib import Path

import numpy as np
import pytest

from config.loading import load_dataset_config
from data.frame_store import FrameStore
from data.layout import compact_path
from data.sequence import Sequence
from scripts.compact_frames import compact, main
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
    assert compact(frames_paths[0])
    assert not compact(frames_paths[0])
    target = compact_path(frames_paths[0])
    target.write_bytes(target.read_bytes()[:300])
    assert compact(frames_paths[0])
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
