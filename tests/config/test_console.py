"""Behaviour of config/console.py."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import TextIO

import pytest

from config.console import let_prints_fail


class Full(io.StringIO):
    """A log on a full disk."""

    encoding = "ascii"

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Callable[[TextIO, TextIO], None]:
    """Standard output and error of a run."""

    def replace(out: TextIO, err: TextIO) -> None:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        let_prints_fail()

    return replace


def test_a_print_that_fails_is_told_once_on_the_other_stream(streams: Callable[[TextIO, TextIO], None]) -> None:
    other = io.StringIO()
    streams(Full(), other)
    for _ in range(3):
        print("step", flush=True)
    told = "standard output cannot be written: No space left on device. The run goes on without it\n"
    assert other.getvalue() == told


@pytest.mark.parametrize("closed", [False, True])
def test_both_may_fail(streams: Callable[[TextIO, TextIO], None], closed: bool) -> None:
    full = Full()
    if closed:
        full.close()
    streams(full, Full())
    print("step", flush=True)
    print("warning", file=sys.stderr, flush=True)


def test_letters_that_the_console_lacks_are_code_points(streams: Callable[[TextIO, TextIO], None]) -> None:
    written = io.BytesIO()
    streams(io.TextIOWrapper(written, encoding="ascii"), io.StringIO())
    print("IoU ≥ 0.5 \ud800", flush=True)
    assert written.getvalue() == b"IoU \\u2265 0.5 \\ud800\n"
