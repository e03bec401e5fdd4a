"""A full disk is an error where HDF5 is written, in whatever write it comes, and never the end of the process."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from config.errors import UserError
from data.frame_files import add_frame_files
from data.frame_store import write_frame_store
from data.hdf5_file import Hdf5Writer
from data.layout import SequenceLayout
from tests.conftest import write_frames
from tests.recordings import files_below, write_recording

ROOT = Path(__file__).parents[2]
FRAMES = np.random.default_rng(0).integers(0, 5, (40, 4, 16, 16)).astype(np.uint8)


@contextmanager
def longest_file(size: int) -> Generator[None]:
    """No file may become longer than this: the same as a full disk, but for this process alone.

    Over before the test ends: where pytest's own output is a file, that has the limit, too.
    """
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def write_two(path: Path) -> None:
    with Hdf5Writer(path) as writer:
        writer.file.create_dataset("data", data=FRAMES, chunks=(1, *FRAMES.shape[1:]))
        writer.file.create_dataset("more", data=np.arange(10_000))


def test_what_is_written_is_an_ordinary_file(tmp_path: Path) -> None:
    with Hdf5Writer(tmp_path / "a.h5") as writer:
        writer.file.create_dataset("data", data=FRAMES, chunks=(1, *FRAMES.shape[1:]), fletcher32=True)
    with Hdf5Writer(tmp_path / "a.h5", "r+") as writer:
        writer.file.attrs["told"] = "later"
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["data"][:], FRAMES)
        assert file.attrs["told"] == "later"


@pytest.mark.parametrize("size", [*range(0, 3000, 300), 10_000, 30_000])
def test_a_full_disk_is_an_os_error(tmp_path: Path, size: int) -> None:
    with longest_file(size), pytest.raises(OSError, match=r"too large.*a\.h5"):
        write_two(tmp_path / "a.h5")
    with longest_file(size), pytest.raises(OSError, match="too large"):
        write_frame_store(tmp_path / "b.h5", FRAMES, FRAMES.shape[1:])


def test_compacting_onto_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    layout = SequenceLayout(tmp_path, "histogram", "event_representations.h5")
    layout.representation.mkdir(parents=True)
    write_frames(layout.frames, FRAMES)
    before = files_below(tmp_path)
    with longest_file(8_000), pytest.raises(UserError, match=r"_compact\.h5 cannot be written: .*too large"):
        add_frame_files(layout, files="compact")
    assert files_below(tmp_path) == before


def test_preprocessing_onto_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    """From the command line: the worker lives, and memory is not blamed."""
    write_recording(tmp_path / "raw" / "train", 20)
    program = (
        "import resource, signal, sys, runpy\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, -1))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    folders = [str(tmp_path / "raw"), str(tmp_path / "out")]
    arguments = [*folders, "dataset=davis346", "dataset.resolution_hw=[20,30]", "layout=both"]
    command = [sys.executable, "-c", program, str(ROOT / "scripts" / "preprocess.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stderr
    assert "Make room there" in done.stderr
    assert "memory" not in done.stderr
    assert files_below(tmp_path / "out") == {}
