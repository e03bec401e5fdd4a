"""`train.py` in processes of their own, so that real signals, kills and full disks can meet them: for tests and soak.

Importing torch and Lightning costs seconds; a fork server imports them once, and each run is forked from it.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 120.0  # for what takes a second or two on an idle machine

Prepare = Callable[[], None]  # runs in the process before train.py; a function of a module


def _forkserver() -> multiprocessing.context.ForkServerContext:
    paths = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), paths)))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["modules.run.entry", "config.command_line", "wandb", "numba"])
    return context


FORKSERVER = _forkserver()


class Program:
    """One of the entry points, running in its own process group; what it prints goes to `log`."""

    def __init__(
        self,
        arguments: list[str],
        log: Path,
        *,
        script: str = "train.py",
        prepare: Prepare | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.log = log
        log.touch()
        self._begin = log.stat().st_size
        self._process = FORKSERVER.Process(
            target=_main, args=([script, *arguments], str(log), prepare, environment or {}), daemon=False
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None, "started by the constructor"
        return self._process.pid

    def output(self) -> str:
        """What this program has printed so far."""
        return self.log.read_bytes()[self._begin :].decode(errors="replace")

    def wait_for(self, happened: Callable[[], object], what: str = "it") -> None:
        """Wait until something has happened while the program runs."""
        end = time.monotonic() + PATIENCE_S
        while not happened():
            assert self._process.is_alive(), f"ended before {what}:\n{self.output()}"
            assert time.monotonic() < end, f"no sign of {what}:\n{self.output()}"
            time.sleep(0.01)

    def wait_for_text(self, text: str, times: int = 1) -> None:
        self.wait_for(lambda: self.output().count(text) >= times, repr(text))

    def kill(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def kill_group(self, signum: int) -> None:
        """As Ctrl-C in a terminal and `screen -X quit` do: the loader's workers get it as well."""
        os.killpg(self.pid, signum)

    def workers(self) -> list[int]:
        """Processes that the program has started."""
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if _parent(path) == self.pid]

    def is_alive(self, pid: int) -> bool:
        """Whether a process still runs; one that has ended may wait for ever to be asked how."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def end(self) -> None:
        """Kill whatever is left of the program and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.join()

    def exit_code(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for the end. As a shell tells it: 128 + signal where a signal ended the process."""
        self._process.join(patience_s)
        if self._process.is_alive():
            self.end()
            raise AssertionError(f"still running after {patience_s} s:\n{self.output()}")
        code = self._process.exitcode
        assert code is not None, "joined above"
        return code if code >= 0 else 128 - code


def wait_until(happened: Callable[[], object]) -> None:
    """Wait for something that happens without a program."""
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def _parent(stat: Path) -> int | None:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _main(argv: list[str], log: str, prepare: Prepare | None, environment: dict[str, str]) -> None:
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may have been started by nohup
    multiprocessing.set_start_method("fork", force=True)  # what a program that is started by itself has
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.argv[:] = argv
    if prepare is not None:
        prepare()
    try:
        runpy.run_path(str(ROOT / argv[0]), run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out
