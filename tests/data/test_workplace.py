"""A place to write in belongs to one process at a time, and to nobody once that has died."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from data import claims
from data.claims import BusyError
from data.workplace import workplace
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
    kill_one_at_work(tmp_path)
    assert len(files_below(tmp_path)) == 2
    with workplace(tmp_path / "a", tmp_path) as own:
        assert list(own.iterdir()) == []
        assert list(files_below(tmp_path)) == ["a/lock"]


def refuse_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_file_system_without_locks_has_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_locks(monkeypatch)
    kill_one_at_work(tmp_path)
    with workplace(tmp_path / "a", tmp_path) as first:
        (first / "half").write_text("of it")
        with pytest.raises(BusyError), workplace(tmp_path / "a", tmp_path):
            pass
        assert (first / "half").read_text() == "of it"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_BEAT_S", 0.05)
    monkeypatch.setattr(claims, "_SILENT_S", 0.5)


def kill_one_at_work(tmp_path: Path, kernel: str | None = None, works_s: float = 0) -> None:
    """On another machine, if `kernel` is one's."""
    child = os.fork()
    if child == 0:
        if kernel is not None:
            claims._kernel = lambda: kernel
        place = workplace(tmp_path / "a", tmp_path)
        (place.__enter__() / "half").write_text("of it")
        time.sleep(works_s)
        os._exit(9)
    if not works_s:
        os.waitpid(child, 0)


@pytest.mark.usefixtures("short")
def test_another_machine_is_heard_of_by_its_signs_of_life(tmp_path: Path) -> None:
    """And its lock is none here: NFS and others keep locks to one machine, or for a machine that is gone."""
    kill_one_at_work(tmp_path, "another", works_s=1.0)
    while not list(tmp_path.rglob("half")):
        time.sleep(0.01)
    began = time.monotonic()
    with pytest.raises(BusyError, match="is being written by process"), workplace(tmp_path / "a", tmp_path):
        pass
    with workplace(tmp_path / "a", tmp_path, wait=True) as own:
        assert time.monotonic() - began > 1.3  # its end, and half a second of silence
        assert list(files_below(tmp_path)) == ["a/lock"]
        assert list(own.iterdir()) == []
    os.wait()


@pytest.mark.usefixtures("short")
def test_one_of_many_takes_over_from_the_dead(tmp_path: Path) -> None:
    kill_one_at_work(tmp_path, "another")
    time.sleep(0.6)
    at_work, most, turns = 0, 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal at_work, most, turns
        with workplace(tmp_path / "a", tmp_path, wait=True) as own:
            with lock:
                at_work, turns = at_work + 1, turns + 1
                most = max(most, at_work)
            (own / "half").write_text("of it")
            time.sleep(0.02)
            assert (own / "half").exists()
            with lock:
                at_work -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, turns) == (1, 6)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("short")
def test_who_stood_still_for_too_long_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slept: another one has taken over, and what it writes is left alone."""
    with monkeypatch.context() as sleeping:
        sleeping.setattr(claims, "_BEAT_S", 60)
        sleeping.setattr(claims, "_kernel", lambda: "another")
        first = workplace(tmp_path / "a", tmp_path / "result")
        own = first.__enter__()
    time.sleep(0.6)
    with workplace(tmp_path / "a", tmp_path / "result") as second:
        with pytest.raises(FileNotFoundError) as error:
            (own / "half").write_text("of it")
        with pytest.raises(BusyError, match="result was taken over by another process"):
            first.__exit__(FileNotFoundError, error.value, None)
        assert second.exists()
