"""A place to write in belongs to one process at a time, and to nobody once that has died."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import threading
from pathlib import Path

import pytest

from data.workplace import BusyError, workplace
from tests.recordings import files_below


def test_another_is_told_who_works_there_or_waits(tmp_path: Path) -> None:
    folder, result = tmp_path / "work" / "a", tmp_path / "a"
    order = []

    def come_second() -> None:
        with workplace(folder, result, wait=True):
            order.append("second")

    second = threading.Thread(target=come_second)
    told = re.escape(f"{result} is being written by process {os.getpid()} on {socket.gethostname()}")
    with workplace(folder, result) as own:
        (own / "half").write_text("of it")
        with pytest.raises(BusyError, match=told), workplace(folder, result):
            pass
        second.start()
        second.join(0.3)
        order.append("first")
        assert (own / "half").read_text() == "of it"
    second.join()
    assert order == ["first", "second"]
    assert not folder.exists()


def test_what_a_process_that_died_has_left_is_removed(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        place = workplace(tmp_path / "a", tmp_path)
        (place.__enter__() / "half").write_text("of it")
        os._exit(9)
    os.waitpid(child, 0)
    assert len(files_below(tmp_path)) == 2
    with workplace(tmp_path / "a", tmp_path) as own:
        assert list(own.iterdir()) == []
        assert list(files_below(tmp_path)) == ["a/lock"]


def test_without_locks_each_has_a_folder_and_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with workplace(tmp_path / "a", tmp_path) as first:
        (first / "half").write_text("of it")
        with workplace(tmp_path / "a", tmp_path) as second:
            assert list(second.iterdir()) == []
        assert (first / "half").read_text() == "of it"
