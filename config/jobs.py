"""Launchers of a sweep: what Hydra's plugin for submitit does not do for its jobs, and which options make no sense."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from config.errors import UserError
from config.launch import read_launch

_PINS = Path(__file__).resolve().parents[1] / "requirements-slurm.txt"
_OF_SWEEPS = re.compile(r"\+{0,2}hydra[./](launcher|sweeper|sweep)\b")
_POLL_S = 0.5


def check_launching(overrides: Sequence[str], *, sweep: bool) -> None:
    """Raises UserError for overrides of Hydra's launcher and sweeper that would be ignored or cannot work."""
    for text in overrides:
        key, _, value = text.strip().lstrip("+").partition("=")
        if not _OF_SWEEPS.match(text.strip()):
            continue
        if not sweep:
            raise UserError(f"{key} is of sweeps: without --multirun this process trains, here and now")
        if key.startswith(("hydra/sweeper", "hydra.sweeper")) and text != "hydra/sweeper=basic":
            raise UserError(f"{key}: a sweep here is a grid of values, key=1,2,3; nothing else is handed to a sweeper")
        if key == "hydra/launcher":
            _check_launcher(value)
        if key in ("hydra.launcher.tasks_per_node", "hydra.launcher.nodes") and value.strip() != "1":
            raise UserError(f"{key}={value}: a member is one task; hydra.launcher.gpus_per_node=N gives it N GPUs")
    if sweep and (launch := read_launch()).world_size > 1:
        left_out = f"leave {launch.launcher} out, hardware.gpus=N takes N GPUs for each"
        raise UserError(f"--multirun starts runs by itself: {left_out}")


def _check_launcher(name: str) -> None:
    if name.startswith("submitit") and importlib.util.find_spec("submitit") is None:
        raise UserError(f"hydra/launcher={name} needs packages: {sys.executable} -m pip install -r {_PINS}")
    Plugins.instance()  # registers what is installed
    known = [entry.removesuffix(".yaml") for entry in ConfigStore.instance().list("hydra/launcher")]
    if name not in known:
        raise UserError(f"hydra/launcher={name}: there is no such launcher. There are: {', '.join(sorted(known))}")


@contextlib.contextmanager
def jobs_that_may_fail(folder: Path) -> Generator[None]:
    """In here a job of submitit's that dies takes no other with it, and Ctrl-C lets local ones save their checkpoints.

    The plugin asks for one result after the other, and ends at the first that is none.
    """
    try:
        from submitit.core.core import Executor
    except ImportError:
        yield
        return
    jobs: list[_TolerantJob] = []
    original = Executor.map_array

    def map_array(executor: Any, function: Any, *arguments: Any) -> list[_TolerantJob]:
        # the first Ctrl-C is the training's, which saves: submitit's own process would kill it a second later
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            jobs.extend(_TolerantJob(job) for job in original(executor, function, *arguments))
        finally:
            signal.signal(signal.SIGINT, before)
        print(f"Started as jobs {', '.join(job.name for job in jobs)}; what they print: {folder}/.submitit", flush=True)
        return jobs

    replaced: Any = map_array
    Executor.map_array = replaced
    try:
        yield
    except KeyboardInterrupt:
        _stop(jobs)
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        Executor.map_array = original


class _TolerantJob:
    """A job whose failure is no exception: the member's record tells it."""

    def __init__(self, job: Any) -> None:
        self.job, self.name = job, str(job.job_id)

    def results(self) -> list[None]:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        with contextlib.suppress(FailedJobError, UncompletedJobError):
            self.job.results()
        return [None]

    def stop(self) -> bool:
        """Ask a job of this machine to stop; whether it has ended."""
        process = getattr(self.job, "_process", None)
        if process is not None and process.poll() is None:
            process.terminate()  # which it hands on to the training
            return False
        return True


def _stop(jobs: Sequence[_TolerantJob]) -> None:
    if any(getattr(job.job, "_process", None) is None for job in jobs):
        print(f"The jobs go on without this process; to end them: scancel {' '.join(job.name for job in jobs)}")
        return
    print("\nStopping: the members save their checkpoints. Ctrl-C again leaves them alone with it.", flush=True)
    while not all([job.stop() for job in jobs]):  # again and again: one that is still starting does not hear
        time.sleep(_POLL_S)


def requeue_if_preempted(signum: int) -> None:
    """Under submitit, a member that its signal has stopped is queued again; it goes on from its checkpoint."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return
    from submitit import JobEnvironment

    if signum == JobEnvironment._usr_sig():
        signal.raise_signal(signum)  # training is over: the handler is submitit's again
