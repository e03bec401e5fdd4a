"""The compact frame store gives back what was put in, or an error."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from config.errors import UserError
from data.frame_store import FrameStore, write_frame_store

SHAPE = (20, 18, 32)


def sparse_frames(density: float, num_frames: int = 4, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    counts = rng.geometric(0.5, (num_frames, *SHAPE)).clip(max=255).astype(np.uint8)
    return counts * (rng.random(counts.shape) < density)


def read_all(path: Path) -> np.ndarray:
    store = FrameStore(path)
    out = np.full((len(store), *store.frame_chw), 77, np.uint8)
    store.read(0, len(store), out)
    store.close()
    return out


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "frames_compact.h5"


@pytest.mark.parametrize("density", [0, 0.0005, 0.004, 0.06, 0.5, 1])
def test_frames_come_back(path: Path, density: float) -> None:
    frames = sparse_frames(density)
    write_frame_store(path, frames, SHAPE)
    assert np.array_equal(read_all(path), frames)


@pytest.mark.parametrize("gap", [0, 1, 254, 255, 256, 509, 510, 511, 11519])
@pytest.mark.parametrize("count", [1, 3, 4, 255])
def test_gaps_and_counts_at_the_limits_of_their_codes(path: Path, gap: int, count: int) -> None:
    frame = np.zeros(20 * 18 * 32, np.uint8)
    frame[gap] = count
    frame[-1] = 2 if gap < 11519 else count
    write_frame_store(path, [frame.reshape(SHAPE)], SHAPE)
    assert np.array_equal(read_all(path).ravel(), frame)


def test_a_stretch_is_read_and_the_rest_of_the_buffer_left_alone(path: Path) -> None:
    frames = sparse_frames(0.06, num_frames=7)
    write_frame_store(path, iter(frames), SHAPE)
    store = FrameStore(path)
    assert (len(store), store.frame_chw) == (7, SHAPE)
    out = np.full((4, *SHAPE), 77, np.uint8)
    store.read(3, 6, out)
    assert np.array_equal(out[:3], frames[3:6])
    assert (out[3] == 77).all()
    store.read(2, 2, out)
    assert np.array_equal(out[:3], frames[3:6])


def test_a_changed_byte_is_an_error_and_never_another_frame(path: Path) -> None:
    frames = sparse_frames(0.02)
    write_frame_store(path, frames, SHAPE)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        first_byte = file["payload"].id.get_chunk_info(0).byte_offset
        payload = range(first_byte, first_byte + len(file["payload"]))
    errors = []
    for position in np.random.default_rng(0).choice(payload, 60, replace=False).tolist():
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            assert np.array_equal(read_all(path), frames)
        except UserError as error:
            errors.append(str(error))
    assert len(errors) >= 55  # the others hit bits that nothing depends on
    assert all(str(path) in error for error in errors)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_refused(path: Path, share: float) -> None:
    write_frame_store(path, sparse_frames(0.06), SHAPE)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match="frames_compact"):
        read_all(path)


def test_a_file_whose_writing_was_interrupted_is_refused(path: Path) -> None:
    def two_frames() -> Iterator[np.ndarray]:
        yield from sparse_frames(0.06, num_frames=2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frame_store(path, two_frames(), SHAPE)
    with pytest.raises(UserError, match="frames_compact"):
        FrameStore(path)


def test_another_hdf5_file_or_none_is_refused(path: Path) -> None:
    with pytest.raises(UserError, match="not found"):
        FrameStore(path)
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(UserError, match="frames_compact"):
        FrameStore(path)


def test_it_takes_less_space_than_the_references_file(path: Path, tmp_path: Path) -> None:
    frames = np.tile(sparse_frames(0.06, num_frames=1), (8, 1, 4, 4))
    write_frame_store(path, frames, frames.shape[1:])
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        filters = hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE)
        file.create_dataset("data", data=frames, chunks=(1, *frames.shape[1:]), **filters)
    assert path.stat().st_size < (tmp_path / "frames.h5").stat().st_size


def test_importing_it_does_not_import_numba() -> None:
    """numba takes a second to import: train.py must not wait for it."""
    program = "import sys, data.frame_store, data.recordings.preprocessing; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
