"""Work in processes of its own: results in order, errors in place of results, a killed worker told."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from config.errors import UserError
from data.workplace import BusyError
from scripts.parallel import run_apart, run_beside_others, run_parallel, split_workers

WAITING_PROGRAM = """
import os, time
from rich.console import Console
from scripts.parallel import run_parallel

def wait(number, on_frame):
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    run_parallel(wait, [1], 1, Console(stderr=True))
"""


def halve(number: int, on_frame: Callable[[], None]) -> int:
    on_frame()
    if number % 2:
        raise UserError(f"{number} is odd")
    return number // 2


def die_of(number: int, on_frame: Callable[[], None]) -> int:
    if number:
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return number


def invert(number: int, on_frame: Callable[[], None]) -> float:
    return 1 / number


def test_results_and_errors_come_in_the_order_of_the_items(capsys: pytest.CaptureFixture[str]) -> None:
    results = run_parallel(halve, [4, 3, 2], 2, Console())
    assert [str(result) for result in results] == ["2", "3 is odd", "1"]
    assert isinstance(results[1], UserError)
    assert "3/3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (int(signal.SIGKILL), "killed from outside, most likely for want of memory: give fewer workers"),
        (int(signal.SIGSEGV), "crashed by SIGSEGV"),
        (int(signal.SIGABRT), "crashed by SIGABRT"),
    ],
)
def test_a_process_that_dies_costs_its_item_alone_and_a_crash_is_no_kill(number: int, words: str) -> None:
    results = run_parallel(die_of, [0, number, 0], 1, Console(), name_of=lambda number: f"/data/{number}")
    assert [results[0], results[2]] == [0, 0]
    assert str(results[1]).startswith(f"/data/{number}: its process ")
    assert words in str(results[1])


def test_any_exception_is_its_items(capsys: pytest.CaptureFixture[str]) -> None:
    results = run_parallel(invert, [1, 0, 2], 1, Console())
    assert [results[0], results[2]] == [1, 0.5]
    assert isinstance(results[1], UserError)
    assert str(results[1]).startswith("0: ZeroDivisionError: division by zero (test_parallel.py, line ")
    assert "Traceback" not in capsys.readouterr().err


def die(number: int) -> int:
    return die_of(number, lambda: None)


def test_a_process_apart_gives_its_result_or_dies_alone() -> None:
    assert run_apart(die, 0, "a.raw") == 0
    with pytest.raises(UserError, match=r"^a\.raw: its process crashed by SIGSEGV, in a library that reads"):
        run_apart(die, int(signal.SIGSEGV), "a.raw")
    with pytest.raises(UserError, match=r"^a\.raw: ZeroDivisionError: .* by zero \(test_parallel\.py, line "):
        run_apart(lambda number: 1 // number, 0, "a.raw")
    with pytest.raises(UserError, match=r"^a\.raw: its process crashed with exit code 0"):
        run_apart(os._exit, 0, "a.raw")


def busy_at_first(number: int, on_frame: Callable[[], None], *, wait: bool = False) -> int:
    if number == 1 and not wait:
        raise BusyError("one is being written by process 7 on there")
    return number


def test_what_another_command_is_at_work_on_comes_last(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_beside_others(busy_at_first, [1, 2], 1, Console()) == [1, 2]
    assert "note: one is being written by process 7 on there: waiting for its end" in capsys.readouterr().err


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "wait.py"
    script.write_text(WAITING_PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        worker.wait(timeout=20)


def test_workers_are_taken_from_the_command_line() -> None:
    assert split_workers(["dataset=gen4"]) == (1, ["dataset=gen4"])
    assert split_workers(["dataset=gen4", "workers=3", "x=1"]) == (3, ["dataset=gen4", "x=1"])


@pytest.mark.parametrize("text", ["workers=0", "workers=-1", "workers=", "workers=many"])
def test_a_useless_number_of_workers_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match=text):
        split_workers([text])
