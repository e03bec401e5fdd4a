"""Frames files that are damaged, or made to attack: refused with one line, and never read as other frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from config.errors import UserError
from data.frame_store import FrameStore, write_frame_store
from data.sequence import Hdf5Frames
from tests.conftest import write_frames

SHAPE = (5, 4, 8, 12)
CHUNK = (1, *SHAPE[1:])
FRAMES = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)


def read(path: Path) -> np.ndarray:
    reader = Hdf5Frames(path)
    try:
        out = np.empty((len(reader), *reader.frame_chw), np.uint8)
        reader.read(0, len(reader), out)
        return out
    finally:
        reader.close()


def write_as_rvt(path: Path) -> None:
    with h5py.File(path, "w") as file:
        filters = hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE)
        file.create_dataset("data", data=FRAMES, maxshape=(None, *SHAPE[1:]), chunks=CHUNK, **filters)


def in_another_file(path: Path) -> Path:
    other = path.with_name("other.h5")
    write_frames(other, FRAMES)
    return other


def unwritten_chunk(file: h5py.File) -> None:
    data = file.create_dataset("data", SHAPE, np.uint8, chunks=CHUNK, **hdf5plugin.Blosc(cname="zstd"))
    data[:4] = FRAMES[:4]


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(SHAPE, np.uint8)
    layout[:] = h5py.VirtualSource("missing.h5", "data", SHAPE)
    file.create_virtual_dataset("data", layout)


def external_storage(file: h5py.File) -> None:
    file.create_dataset("data", SHAPE, np.uint8, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def external_link(file: h5py.File) -> None:
    file["data"] = h5py.ExternalLink(in_another_file(Path(file.filename)), "data")


def soft_link(file: h5py.File) -> None:
    file["elsewhere"] = h5py.ExternalLink(in_another_file(Path(file.filename)), "/")
    file["data"] = h5py.SoftLink("/elsewhere/data")


def foreign_filter(file: h5py.File) -> None:
    file.create_dataset("data", data=FRAMES, chunks=CHUNK, **hdf5plugin.Zstd())


def several_frames_a_chunk(file: h5py.File) -> None:
    file.create_dataset("data", data=FRAMES, chunks=(5, 4, 8, 12))


def other_type(file: h5py.File) -> None:
    file.create_dataset("data", data=FRAMES.astype(np.int8), chunks=CHUNK)


def huge_frames(file: h5py.File) -> None:
    file.create_dataset("data", (1, 1, 2**15, 2**15), np.uint8, chunks=(1, 1, 2**15, 2**15))


def no_data_set(file: h5py.File) -> None:
    file.create_group("data")


ODD: list[tuple[Callable[[h5py.File], None], str]] = [
    (unwritten_chunk, "4 of 5 frames are stored"),
    (virtual, "stands in another file"),
    (external_storage, "stands in another file"),
    (external_link, "a link to another place"),
    (soft_link, "a link to another place"),
    (foreign_filter, r"HDF5 filters \[32015\]"),
    (several_frames_a_chunk, "not one in each"),
    (other_type, "int8"),
    (huge_frames, "claims frames of 1,073,741,824 bytes"),
    (no_data_set, "no data set"),
]


@pytest.mark.parametrize(("write", "message"), ODD)
def test_what_is_no_file_of_frames_is_refused_unread(
    tmp_path: Path, write: Callable[[h5py.File], None], message: str
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write(file)
    with pytest.raises(UserError, match=rf"a\.h5 is damaged .*{message}.*preprocess\.py"):
        read(tmp_path / "a.h5")


@pytest.mark.parametrize("write", [write_as_rvt, lambda path: write_frames(path, FRAMES)])
def test_a_changed_byte_of_the_metadata_gives_the_right_frames_or_an_error(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    """`scripts/fuzz.py what=frames cases=all` changes every one; here those that are not zero, where the most is."""
    path = tmp_path / "a.h5"
    write(path)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        chunks = [file["data"].id.get_chunk_info(index) for index in range(len(FRAMES))]
    content = {place for chunk in chunks for place in range(chunk.byte_offset, chunk.byte_offset + chunk.size)}
    places = [place for place in range(len(whole)) if whole[place] and place not in content]
    refused = 0
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            frames = read(path)
        except UserError as error:
            refused += str(path) in str(error)
        else:
            assert np.array_equal(frames, FRAMES), place
    assert refused > len(places) / 4


def test_a_chunk_that_the_table_of_chunks_hides_is_an_error(tmp_path: Path) -> None:
    """The file names all chunks, but a read looks for them by keys of its own: what it does not find would be zeros."""
    path = tmp_path / "a.h5"
    many = np.ones((200, 1, 2, 8), np.uint8)
    write_frames(path, many)
    whole = path.read_bytes()
    missed = 0
    for begin in [place for place in range(len(whole)) if whole.startswith(b"TREE\x01\x01", place)]:
        first_keys = whole[begin + 24 : begin + 24 + 48]
        path.write_bytes(whole[: begin + 24] + first_keys[:8] + b"\x90" + first_keys[9:] + whole[begin + 72 :])
        with pytest.raises(UserError, match="damaged"):
            read(path)
        missed += 1
    assert missed == 1


def test_a_compact_store_with_links_or_filters_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "frames_compact.h5"
    write_frame_store(path, FRAMES, SHAPE[1:])
    with h5py.File(path, "r+") as file:
        starts = file["frame_start"][:]
        del file["frame_start"]
        file.create_dataset("frame_start", data=starts, **hdf5plugin.Zstd())
    with pytest.raises(UserError, match=r"HDF5 filters \[32015\]"):
        FrameStore(path)
