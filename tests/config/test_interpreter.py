"""A process that ends at once, and still as a process should."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.interpreter import quick_imports

ROOT = Path(__file__).parents[2]
PROGRAM = """
from config.interpreter import quick_exit
import atexit, sys, threading, time
class Freed:
    def __del__(self):
        print("freed one by one")
with quick_exit():
    kept = Freed()
    atexit.register(print, "exit handler")
    threading.Thread(target=lambda: (time.sleep(0.05), print("thread"))).start()
    sys.stderr.write("words without a line end")
    {end}
"""


def run(end: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PROGRAM.format(end=end)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, cwd=ROOT, text=True, stderr=subprocess.PIPE, check=False, env=environment, **options)


@pytest.mark.parametrize(("end", "code"), [("pass", 0), ("sys.exit(3)", 3), ("sys.exit()", 0), ("sys.exit(-1)", 255)])
def test_threads_and_exit_handlers_end_and_nothing_is_freed(end: str, code: int) -> None:
    ended = run(end, stdout=subprocess.PIPE)
    assert (ended.stdout, ended.stderr) == ("thread\nexit handler\n", "words without a line end")
    assert ended.returncode == code


@pytest.mark.parametrize(("end", "told"), [("1 / 0", "ZeroDivisionError"), ("sys.exit('a message')", "a message")])
def test_an_error_ends_as_ever(end: str, told: str) -> None:
    ended = run(end, stdout=subprocess.PIPE)
    assert ended.returncode == 1
    assert told in ended.stderr
    assert ended.stdout.endswith("freed one by one\n")


def test_output_that_cannot_be_written_fails_the_process() -> None:
    with Path("/dev/full").open("w") as full:
        ended = run("pass", stdout=full)
    assert ended.returncode == 120
    assert "No space left on device" in ended.stderr


def test_imports_are_kept_once_and_collections_run_again_even_if_one_fails() -> None:
    was_enabled = []

    def imports() -> None:
        with quick_imports():
            was_enabled.append(gc.isenabled())
            raise ImportError

    gc.unfreeze()
    try:
        with pytest.raises(ImportError):
            imports()
        assert (was_enabled, gc.isenabled()) == ([False], True)
        kept = gc.get_freeze_count()
        with quick_imports():
            pass
        assert gc.get_freeze_count() <= kept > 0, "what a member of a sweep leaves is no import's"
    finally:
        gc.unfreeze()
