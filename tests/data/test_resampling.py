"""Frames made smaller are those that the recording itself gives."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from config.errors import UserError
from data.recordings.preprocessing import preprocess_recording
from data.recordings.representation import resample_frame
from data.recordings.usable import RecordingFiles
from data.resampling import Resampled, resample_sequence
from tests.recordings import COMPACT, FULL, REPRESENTATION, files_below, small_dataset, write_recording

SIZES = [(10, 15), (12, 18), (7, 11)]
FULL_SIZE = (20, 30)


def write_busy_recording(folder: Path) -> RecordingFiles:
    """2,000 events a window on a third of 600 pixels: many cells reach the cut-off, and some 255."""
    files = write_recording(folder)
    rng = np.random.default_rng(1)
    t_us = np.sort(rng.integers(0, 1_000_000, 40_000))
    x, y = (np.minimum(rng.geometric(0.1, t_us.size) - 1, size - 1) for size in (30, 20))
    with h5py.File(files.events, "w") as events:
        for key, column in {"x": x, "y": y, "p": t_us % 2, "t": t_us}.items():
            events[f"events/{key}"] = column
    return files


def test_all_files_are_those_of_the_recording(tmp_path: Path) -> None:
    files, dataset = write_busy_recording(tmp_path / "raw"), small_dataset()
    preprocess_recording(tmp_path / "counted", dataset, files, sizes=[*SIZES, FULL_SIZE], layout="both")
    preprocess_recording(tmp_path / "resampled", dataset, files, layout="both")
    folder = tmp_path / "resampled" / "train" / "a"
    assert resample_sequence(dataset, SIZES, folder, files="both") == Resampled(3, 0, tells_settings=True)
    assert files_below(tmp_path / "resampled") == files_below(tmp_path / "counted")
    assert resample_sequence(dataset, [*SIZES, FULL_SIZE], folder) == Resampled(0, 0, tells_settings=True)


@pytest.mark.parametrize("cutoff", [10, 255])
def test_a_cell_is_the_sum_of_those_whose_middle_it_holds(cutoff: int) -> None:
    source = np.random.default_rng(2).integers(0, cutoff, (2, 6, 9), np.uint8, endpoint=True)
    frame = np.full((2, 4, 6), 7, np.uint8)
    resample_frame(source, cutoff, frame)
    expected = np.zeros(frame.shape, int)
    for y in range(6):
        for x in range(9):
            expected[:, int((y + 0.5) * 4 / 6), int((x + 0.5) * 6 / 9)] += source[:, y, x]
    assert np.array_equal(frame, expected.clip(max=cutoff))


def test_what_cannot_be_made_exactly_is_refused(tmp_path: Path) -> None:
    files, folder = write_busy_recording(tmp_path / "raw"), tmp_path / "train" / "a"
    preprocess_recording(tmp_path, small_dataset(), files, sizes=SIZES[:1])
    with pytest.raises(UserError, match=r"from those of the sensor's size alone.* from the recordings"):
        resample_sequence(small_dataset(), SIZES, folder)
    preprocess_recording(tmp_path, small_dataset(), files, layout="rvt")
    of_five = small_dataset("dataset.representation.count_cutoff=5")
    with pytest.raises(UserError, match="count_cutoff=10"):
        resample_sequence(of_five, SIZES, folder)
    with h5py.File(folder / REPRESENTATION / FULL, "r+") as file:
        file.attrs.clear()  # as of RVT's own script
    before = files_below(folder)
    with pytest.raises(UserError, match="has counts of"):
        resample_sequence(of_five, SIZES, folder)
    assert files_below(folder) == before
    assert resample_sequence(small_dataset(), SIZES, folder) == Resampled(2, 0, tells_settings=False)
    assert (folder / REPRESENTATION / COMPACT.replace("_compact", "_7x11_compact")).is_file()
