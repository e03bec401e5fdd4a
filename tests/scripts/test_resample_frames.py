"""scripts/resample_frames.py from the command line to its last line."""

from pathlib import Path

import pytest

from data.recordings.preprocessing import preprocess_recording
from scripts.resample_frames import main
from tests.recordings import small_dataset, write_recording

DATASET = ["dataset=davis346", "dataset.resolution_hw=[20,30]"]


def test_what_is_made_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preprocess_recording(tmp_path, small_dataset(), write_recording(tmp_path / "raw"))
    assert main([str(tmp_path), *DATASET, "sizes=10x15,12x18"]) == 0
    out = capsys.readouterr().out
    assert "12 x 18: sums of counts up to 10; 10 x 15: the pixels of odd row and column (RVT's ds2_nearest)" in out
    assert out.endswith("2 written, 0 were there already\n")


def test_a_folder_without_sequences_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), *DATASET, "sizes=10x15"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} has no sequences")
