"""Files of arrays whose headers lie: one line that names the file, whatever numpy says to them."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from config.errors import UserError
from data.arrays import read_npy, read_npz, whole_numbers


@pytest.fixture
def npy(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", np.arange(5))
    return tmp_path / "a.npy"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"(5,)", b"(4,)"),  # one value would be lost
        (b"(5,)", b"(9,)"),
        (b"(5,), }", b"(99999999999,)}"),
        (b"{'descr", b"{(escr"),  # TokenError
        (b"'<i8'", b"'|O8'"),
        (b"'<i8'", b"'<x8'"),
        (b"NUMPY\x01", b"NUMPY\x09"),
    ],
)
def test_a_header_that_lies_is_refused(npy: Path, old: bytes, new: bytes) -> None:
    content = npy.read_bytes().replace(old, new)
    npy.write_bytes(content)
    with pytest.raises(UserError, match=r"^\S*a\.npy is missing or damaged \(.*\)\. Do that$"):
        read_npy(npy, "Do that")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        for _ in range(80):
            member.write(bytes(2**20))
    with pytest.raises(UserError, match="a claims 83,886,080 bytes"):
        read_npz(path, ["a"], "")


def test_what_is_sound_is_read(npy: Path, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "b.npz", a=np.zeros((2, 3), order="F"), b=np.array("text"))
    a, b = read_npz(tmp_path / "b.npz", ["a", "b"], "")
    assert (a.shape, str(b)) == ((2, 3), "text")
    np.testing.assert_array_equal(read_npy(npy, ""), np.arange(5))


@pytest.mark.parametrize(
    "values", [np.ones((2, 2)), np.array([1.5]), np.array([np.nan]), np.array([True]), np.array(["a"]), np.array([1j]),
               np.array([2**63], np.uint64), np.array(1)]
)  # fmt: skip
def test_what_is_no_list_of_whole_numbers_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"^ids"):
        whole_numbers(values, "ids")


def test_whole_numbers_of_any_type_are_taken() -> None:
    for dtype in ("i1", ">u4", "f8", "u8"):
        assert whole_numbers(np.array([1, 3], dtype), "ids").tolist() == [1, 3]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "boxes.npy")
    for read in (lambda path: read_npy(path, ""), lambda path: read_npz(path, ["a"], "")):
        with pytest.raises(UserError, match="no file but a folder, pipe or device"):
            read(tmp_path / "boxes.npy")
