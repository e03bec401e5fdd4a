"""Compilation on the first call, with and without a place for its cache."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data import compiled as module
from data.compiled import compiled

PROGRAM = """
import numpy as np
from data.compiled import compiled
from numba.core import caching
caching.CacheImpl._locator_classes = []  # as on a file system where nothing can be written
@compiled
def total(values):
    result = 0
    for value in values:
        result += value
    return result
print(total(np.arange(5)))
"""


@compiled
def sum_of_squares(values: np.ndarray) -> int:
    result = 0
    for value in values:
        result += value * value
    return result


def test_a_compiled_function_keeps_its_name_and_result() -> None:
    assert sum_of_squares.__name__ == "sum_of_squares"
    assert sum_of_squares(np.arange(4)) == 14
    assert sum_of_squares(np.array([0.5])) == 0.25


def test_threads_that_call_it_first_compile_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def slow_compiler(function):
        calls.append(function)
        time.sleep(0.05)
        return function

    monkeypatch.setattr(module, "_compile", slow_compiler)
    function = compiled(lambda value: value + 1)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(function, range(4))) == [1, 2, 3, 4]
    assert len(calls) == 1


def test_it_works_where_no_cache_can_be_written(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=False)
    assert (run.stdout, run.returncode) == ("10\n", 0), run.stderr
