"""Behaviour of modules/run/writing.py."""

from __future__ import annotations

import errno
import os

import pytest

from modules.run.writing import goes_on_without


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "f"), r"^curves.png CANNOT BE WRITTEN: No space left"),
        (OSError("encoder error"), "^curves.png CANNOT BE WRITTEN: encoder error"),
        (
            MemoryError(),
            r"^curves.png: MemoryError:  \(test_writing.py, line \d+\). The run goes on; metrics.csv has it.$",
        ),
        (ValueError("two\nlines"), r"^curves.png: ValueError: two lines \(test_writing.py, line \d+\)"),
    ],
)
def test_whatever_fails_costs_a_run_one_line(failure: Exception, line: str) -> None:
    with pytest.warns(UserWarning, match=line), goes_on_without("curves.png", "metrics.csv has it"):
        raise failure


def test_our_own_bugs_are_errors_in_tests() -> None:
    with pytest.raises(UserWarning, match="NameError"), goes_on_without("a picture"):
        raise NameError("x")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_passes(stop: type[BaseException]) -> None:
    with pytest.raises(stop), goes_on_without("a picture"):
        raise stop
