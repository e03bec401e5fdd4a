from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from config.errors import UserError
from modules.run.checkpoint_file import AtomicCheckpointIO, newest_loadable, read_checkpoint
from tests.runs import checkpoint_content

CONTENT = checkpoint_content()


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    io = AtomicCheckpointIO()
    io.save_checkpoint(CONTENT, tmp_path / "last_epoch=000-step=3.ckpt")
    assert io.error is None
    assert read_checkpoint(tmp_path / "last_epoch=000-step=3.ckpt")["state_dict"]["weight"].tolist() == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["last_epoch=000-step=3.ckpt"]


def test_a_failed_write_is_kept_as_error_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    io = AtomicCheckpointIO()
    io.save_checkpoint(CONTENT, tmp_path / "a.ckpt")
    before = (tmp_path / "a.ckpt").read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    io.save_checkpoint({**CONTENT, "global_step": 4}, tmp_path / "a.ckpt")
    assert "No space left" in str(io.error)
    assert (tmp_path / "a.ckpt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_the_newest_readable_checkpoint_is_found(tmp_path: Path) -> None:
    io = AtomicCheckpointIO()
    for step in (5, 90, 100):
        io.save_checkpoint(CONTENT, tmp_path / f"last_epoch=000-step={step}.ckpt")
    newest = tmp_path / "last_epoch=000-step=100.ckpt"
    newest.write_bytes(newest.read_bytes()[:-50])
    with pytest.warns(UserWarning, match="trying the one before"):
        assert newest_loadable(tmp_path).name == "last_epoch=000-step=90.ckpt"


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("evil was here",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is an empty file"),
        (b"not a checkpoint at all", "cannot be read as a checkpoint"),
        ({"state_dict": {}}, "weights="),
        ({**CONTENT, "more": Evil()}, "cannot be read as a checkpoint"),
    ],
)
def test_files_that_are_no_checkpoints_are_reported_in_one_line(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "file.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("evil was here").exists()


def test_one_changed_byte_is_found_wherever_it_is(tmp_path: Path) -> None:
    """Content that loads all the same is the content that was written."""
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 23):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.unlink()
        path.write_bytes(damaged)
        try:
            content = read_checkpoint(path)
        except UserError:
            refused += 1
        else:
            assert torch.equal(content["state_dict"]["weight"], CONTENT["state_dict"]["weight"])
            assert {**content, "state_dict": {}} == {**CONTENT, "state_dict": {}}
    assert refused > 50
