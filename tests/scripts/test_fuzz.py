"""Damage is told by what it does to the process that reads; `make test-all` runs some of every kind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from config.errors import UserError
from scripts import fuzz
from scripts.fuzz_kinds import KINDS, Target


def refuse() -> bytes:
    raise UserError("a file: no")


def fail() -> bytes:
    raise KeyError("a bug")


def die() -> bytes:
    os.kill(os.getpid(), signal.SIGSEGV)
    return b""


def leave() -> bytes:
    os._exit(0)


def hang() -> bytes:
    time.sleep(60)
    return b""


ENDINGS: list[tuple[Callable[[], bytes], str]] = [
    (lambda: b"sound", "right"),
    (lambda: b"other", "silent"),
    (refuse, "refused"),
    (fail, "traceback"),
    (die, "crash"),
    (leave, "exit0"),
    (hang, "hang"),
]


@pytest.mark.parametrize(("ending", "outcome"), ENDINGS)
def test_each_ending_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    ending: Callable[[], bytes],
    outcome: str,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"sound")

    def read() -> bytes:
        return b"sound" if path.read_bytes() == b"sound" else ending()

    monkeypatch.setitem(KINDS, "kind", lambda folder: Target({path: ((0, 5),)}, read))
    monkeypatch.setattr(fuzz, "_PATIENCE_S", 0.5)
    exit_code = fuzz.main(["what=[kind]", "cases=2", "seed=1"])
    printed = capsys.readouterr().out
    assert f"{outcome} 2" in printed
    assert exit_code == (outcome in fuzz.BAD)
    assert ("python scripts/fuzz.py seed=1 cases=2 what=kind case=0" in printed) == (outcome in fuzz.BAD)
    assert path.read_bytes() == b"sound"


@pytest.mark.parametrize("argument", ["cases=x", "what=tea", "cake=1", "cases"])
def test_an_argument_that_is_none_is_refused(argument: str, capsys: pytest.CaptureFixture) -> None:
    assert fuzz.main([argument]) == 2
    assert argument.split("=")[0] in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_is_silent_or_ends_a_process(kind: str, capsys: pytest.CaptureFixture) -> None:
    assert fuzz.main([f"what={kind}", "cases=300"]) == 0, capsys.readouterr().out
