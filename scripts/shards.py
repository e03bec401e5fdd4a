"""`shard=3/16`: one part of a command's work, for arrays of jobs; `launcher=submitit` starts such jobs."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from config.errors import UserError
from scripts.parallel import split_key

Item = TypeVar("Item")
_PINS = Path(__file__).resolve().parents[1] / "requirements-slurm.txt"
_LONGEST_MIN = 24 * 60  # unless the user says otherwise; submitit's own limit is 5 minutes
_JOB_SETTINGS = "submitit."


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def of(cls, value: str) -> Shard:
        """From `3/16`. Raises UserError for what is none."""
        found = re.fullmatch(r"([0-9]+)/([0-9]+)", value)
        if not found:
            raise UserError(f"shard={value}: give the number of the part and of parts, as in shard=3/16")
        number, count = map(int, found.groups())
        if not 1 <= number <= count:
            from_one = f": with SLURM, --array=1-{count} and shard=$SLURM_ARRAY_TASK_ID/{count}" if number == 0 else ""
            raise UserError(f"shard={value}: parts count from 1 to {count}{from_one}")
        return cls(number, count)

    def part(self, items: Sequence[Item], size_of: Callable[[Item], float] = lambda item: 0) -> list[Item]:
        """Every `count`-th of the items, the largest ones dealt out first, in the order of `items`."""
        dealt = sorted(range(len(items)), key=lambda index: (-size_of(items[index]), index))
        return [items[index] for index in sorted(dealt[self.number - 1 :: self.count])]


def split_shard(overrides: Sequence[str]) -> tuple[Shard | None, list[str]]:
    value, others = split_key("shard", "", overrides)
    return (Shard.of(value) if value or len(others) < len(overrides) else None), others


@dataclass(frozen=True)
class Launch:
    """What `launcher=submitit shards=16 submitit.KEY=VALUE` asks for."""

    shards: int
    settings: dict[str, Any]  # of submitit's AutoExecutor; `folder` and `cluster` are of its constructor

    @classmethod
    def split(cls, overrides: Sequence[str]) -> tuple[Launch | None, list[str]]:
        launcher, others = split_key("launcher", "", overrides)
        shards, others = split_key("shards", "", others)
        settings: dict[str, Any] = {}
        for text in [text for text in others if text.startswith(_JOB_SETTINGS)]:
            key, _, value = text.removeprefix(_JOB_SETTINGS).partition("=")
            settings[key] = int(value) if re.fullmatch("-?[0-9]+", value) else value
        others = [text for text in others if not text.startswith(_JOB_SETTINGS)]
        if not launcher:
            if shards or settings:
                raise UserError(f"shards= and {_JOB_SETTINGS}KEY= belong to launcher=submitit, which is not given")
            return None, others
        if launcher != "submitit":
            raise UserError(f"launcher={launcher}: submitit is the only one")
        if not re.fullmatch("[1-9][0-9]*", shards):
            raise UserError(f"shards={shards}: launcher=submitit needs a number of jobs, at least 1")
        if any(text.startswith("shard=") for text in others):
            raise UserError("shard= is one part and launcher=submitit starts all of them: leave one of the two out")
        return cls(int(shards), settings), others

    @property
    def folder(self) -> Path:
        """Where the jobs' output goes."""
        return Path(self.settings.get("folder", "submitit_logs"))

    def run(self, script: str, arguments: Sequence[str]) -> None:
        """`scripts/SCRIPT.py ARGUMENTS shard=I/N` in a job for each I, until all have ended; their outcomes are told.

        Raises UserError without submitit, and for settings that it refuses.
        """
        jobs = self._submit(script, arguments)
        print(f"started as jobs {', '.join(job.job_id for job in jobs)}; what they print: {self.folder}", flush=True)
        for number, job in enumerate(jobs, start=1):
            try:
                code = job.result()
                outcome = "done" if code == 0 else f"exit code {code}"
            except Exception as error:  # submitit's own, or whatever the job died of
                outcome = f"failed, or submitit lost sight of it: {' '.join(str(error).split())[:200]}"
            told = "" if outcome == "done" else f"; see {job.paths.stdout} and {job.paths.stderr}"
            print(f"shard {number}/{self.shards} (job {job.job_id}): {outcome}{told}", flush=True)

    def _submit(self, script: str, arguments: Sequence[str]) -> list[Any]:
        if importlib.util.find_spec("submitit") is None:
            raise UserError(f"launcher=submitit needs a package: {sys.executable} -m pip install -r {_PINS}")
        import submitit

        settings: dict[str, Any] = {"timeout_min": _LONGEST_MIN, **self.settings}
        cluster = settings.pop("cluster", None)
        settings.pop("folder", None)
        try:
            executor = submitit.AutoExecutor(folder=self.folder, cluster=cluster)
            executor.update_parameters(**settings)
            shards = [f"shard={Shard(number, self.shards)}" for number in range(1, self.shards + 1)]
            return executor.map_array(
                run_script, *zip(*[(script, [*arguments, shard]) for shard in shards], strict=True)
            )
        except (ValueError, TypeError, NameError, RuntimeError, OSError) as error:
            raise UserError(f"submitit: {' '.join(str(error).split())}") from error


def run_script(script: str, arguments: list[str]) -> int:
    """In a job."""
    return importlib.import_module(f"scripts.{script}").main(arguments)
