"""Sweeps: `--multirun` makes every member of a grid, keeps going when one fails, and then makes only what is missing.

Hydra composes the members and launches them (one after the other, or with a launcher's plugin such as submitit's as
jobs of their own); which of them there is to do, and what became of them, is decided here. A member is known by its
config. What became of it stands in a file of the sweep's folder, since a job may die without a word.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from config.errors import Told, UserError
from config.jobs import jobs_that_may_fail, requeue_if_preempted
from config.sections import is_under

State = Literal["finished", "running", "half-done", "failed", "new"]
_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
_SIGNALLED = 128
# Keys that change neither the weights that come out nor what is measured of them.
WITHOUT_EFFECT = (
    *("resume", "trust_checkpoint", "run_root", "logger", "logging", "checkpoint"),
    *("training.profiler", "training.requeue", "experiment", "notes"),
    *("hardware.num_workers", "hardware.loader_timeout_s", "hardware.dist_backend"),
)


@dataclass(frozen=True)
class Progress:
    """How far a member has come: `where` tells it in words, `run` is its folder."""

    state: State = "new"
    where: str = ""
    run: Path | None = None


@dataclass(frozen=True)
class Member:
    """One run of a grid."""

    label: str  # what tells it from the others
    command: tuple[str, ...]  # overrides that make it alone, in any folder
    overrides: tuple[str, ...]  # the same for Hydra
    config: Any

    @property
    def digest(self) -> str:
        return digest(self.config)


@dataclass(frozen=True)
class Kind:
    """What train.py, or validation.py, knows of its runs. Members of which it knows None are made each time."""

    progress: Callable[[Any], Progress | None] = lambda config: None
    resumed: Callable[[Any, Path], Any] | None = None  # config, run folder -> config


NO_MEMORY = Kind()


def digest(config: Any) -> str:
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def group_name(overrides: Sequence[str], swept: Sequence[str]) -> str:
    """The name of a sweep that nobody has named: other values of the swept keys belong to the same one."""
    keys = {text: text.partition("=")[0].lstrip("+") for text in overrides}
    fixed = sorted(text for text, key in keys.items() if key not in swept and not is_under(key, WITHOUT_EFFECT))
    text = json.dumps([fixed, sorted(swept)])
    keys = "-".join(key.split(".")[-1].split("/")[-1] for key in swept) or "sweep"
    return f"{keys[:60]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


class Sweep:
    """The members of a `--multirun` command."""

    def __init__(self, program: str, members: Sequence[Member], kind: Kind) -> None:
        unique = {member.digest: member for member in members}
        if len(unique) < len(members):
            print(f"{len(members) - len(unique)} of {len(members)} runs repeat another one's settings: made once")
        self.program, self.members, self.kind = program, list(unique.values()), kind

    def install(self) -> None:
        """Have Hydra hand its sweep over to this one."""
        MemberSweeper.sweep_of_process = self
        Plugins.instance().class_name_to_class[_SWEEPER] = MemberSweeper

    @property
    def group(self) -> str | None:
        """The name that all runs have in common."""
        first = self.members[0].config
        return None if self.kind.progress(first) is None else first.wandb.group_name

    def _projects(self) -> list[str]:
        roots = {str(member.config.run_root / member.config.wandb.project_name) for member in self.members}
        return sorted(roots)

    def label(self, config: Any) -> str:
        return next(member.label for member in self.members if member.digest == digest(config))

    def run(self, launcher: Launcher, name: str, folder: Path) -> int:
        """Make what is missing; return the exit code."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: the sweep's folder cannot be made: {error}. Set run_root=FOLDER") from error
        for member in self.members:
            if self.kind.progress(member.config) is None:
                Record(folder, member.digest).clear()
        before = {member.digest: self._progress(member, folder) for member in self.members}
        todo = [member for member in self.members if before[member.digest].state not in ("finished", "running")]
        print(f"Sweep of {len(self.members)} runs, {len(todo)} to do; launcher {name}, records in {folder}")
        self._tell(before, {"half-done": "goes on", "failed": "again", "running": "runs elsewhere"})
        code = 0
        if todo:
            for member in todo:
                Record(folder, member.digest).clear()
            try:
                with jobs_that_may_fail(folder):
                    launcher.launch([member.overrides for member in todo], 0)
                self._name_the_dead(todo, folder)
            except SystemExit as stop:  # a signal in a member of this process
                code = int(stop.code or 0)
        after = {member.digest: self._progress(member, folder) for member in self.members}
        return self._summary(after, code)

    def _progress(self, member: Member, folder: Path) -> Progress:
        record, now = Record(folder, member.digest), self.kind.progress(member.config)
        code, reason = record.read()
        reason = reason.partition("\n")[0]
        if now is None:
            return Progress("new" if code is None else "failed" if code else "finished", reason)
        if record.is_claimed():
            return Progress("running", now.where, now.run)
        if code == 0 and now.run is not None:
            return Progress("finished", now.where, now.run)
        if code is not None and now.state in ("new", "failed", "half-done"):
            state: State = "half-done" if now.state == "half-done" else "failed"
            return Progress(state, "; ".join(filter(None, (now.where, reason))), now.run)
        return now

    def _name_the_dead(self, launched: Sequence[Member], folder: Path) -> None:
        for member in launched:
            record = Record(folder, member.digest)
            if record.read()[0] is None and self._progress(member, folder).state not in ("finished", "running"):
                record.write(1, f"its job died without a word; what it printed: {folder}/.submitit")

    def _tell(self, progress: dict[str, Progress], words: dict[str, str]) -> None:
        for member in self.members:
            now = progress[member.digest]
            print(f"  {words.get(now.state, now.state):14}  {member.label}  {now.where}".rstrip())
        sys.stdout.flush()

    def _summary(self, progress: dict[str, Progress], code: int) -> int:
        states = [each.state for each in progress.values()]
        counts = {state: states.count(state) for state in dict.fromkeys(states)}
        print(f"\nSweep: {', '.join(f'{count} {state}' for state, count in counts.items())}")
        self._tell(progress, {"new": "not begun"})
        missing = [member for member in self.members if progress[member.digest].state not in ("finished", "running")]
        if missing:
            print(
                "\nEach alone:" if self.group is None else "\nThe same command again makes what is missing. Each alone:"
            )
        for member in missing:
            now = progress[member.digest]
            alone = [f"resume={now.run}"] if now.state == "half-done" else member.command
            print(f"  {shlex.join(['python', self.program, *alone])}")
        if self.group is not None:
            print(f"\nTable: python scripts/compare_runs.py {shlex.join([*self._projects(), '--group', self.group])}")
        sys.stdout.flush()
        return code or (0 if counts.keys() <= {"finished"} else 1)


class MemberSweeper(Sweeper):
    """What Hydra finds instead of its own sweeper, whose options `check_launching` refuses."""

    sweep_of_process: ClassVar[Sweep]

    def __init__(self, **_: Any) -> None: ...

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._folder = Path(config.hydra.sweep.dir).absolute()
        self._name = config.hydra.runtime.choices["hydra/launcher"]
        self._launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        logging.getLogger(type(self._launcher).__module__).setLevel(logging.WARNING)  # it would list whole commands
        exit_code = self.sweep_of_process.run(self._launcher, self._name, self._folder)
        if exit_code:
            sys.exit(exit_code)


class Record:
    """What became of a member, in the sweep's folder; and who is making it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file, self._lock = folder / f"{name}.json", folder / f"{name}.lock"

    def clear(self) -> None:
        self._file.unlink(missing_ok=True)

    def write(self, code: int, reason: str) -> None:
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps({"exit_code": code, "reason": reason}))
        temporary.replace(self._file)

    def read(self) -> tuple[int | None, str]:
        """Exit code (None: nothing is known) and, where it is not 0, the reason."""
        try:
            content = json.loads(self._file.read_text())
            return int(content["exit_code"]), str(content["reason"])
        except (OSError, ValueError, KeyError, TypeError):
            return None, ""

    @contextlib.contextmanager
    def claim(self) -> Generator[bool]:
        """Whether nobody else is making the member; nobody will while this lasts."""
        with self._lock.open("a") as file:
            yield _locks(file.fileno())

    def is_claimed(self) -> bool:
        if not self._lock.is_file():
            return False
        with self._lock.open("a") as file:
            return not _locks(file.fileno())


def _locks(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def run_member(
    config: Any, argv: list[str], task: Callable[[Any, list[str]], int], kind: Kind, launched_by: int
) -> None:
    """Make one member in this process, unless it has been made or somebody else is about it. Raises for no failure.

    `launched_by` is the process that has the sweep: a signal to it ends the sweep, too, by SystemExit.
    """
    record = Record(Path(HydraConfig.get().sweep.dir).absolute(), digest(config))
    is_here = os.getpid() == launched_by
    label = MemberSweeper.sweep_of_process.label(config) if is_here else shlex.join(argv)
    print(f"\nMember: {label}", flush=True)
    with record.claim() as is_mine:
        now = kind.progress(config) or Progress()
        if not is_mine or now.state in ("finished", "running"):
            print(f"Nothing to do: it {'has finished' if now.state == 'finished' else 'runs elsewhere'}. {now.where}")
            return
        if now.state == "half-done" and kind.resumed and now.run:
            config = kind.resumed(config, now.run)
            argv = [*argv, f"resume={now.run}"]
            sys.argv[:] = argv
        record.clear()
        code, reason = _outcome(lambda: task(config, argv))
        record.write(code, reason)
    if code > _SIGNALLED:
        if is_here:
            raise SystemExit(code)
        requeue_if_preempted(code - _SIGNALLED)


def _outcome(task: Callable[[], int]) -> tuple[int, str]:
    """Exit code of a task and why it failed, whatever it raises."""
    try:
        code = task()
        return code, "" if code == 0 else _reason_of(code)
    except Told as told:
        return int(told.code or 0), str(told.message)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        return code, "" if code == 0 else _reason_of(code)
    except KeyboardInterrupt:
        return _SIGNALLED + 2, "interrupted"
    except Exception as error:
        traceback.print_exc()
        return 1, f"{type(error).__name__}: {error}".splitlines()[0]


def _reason_of(code: int) -> str:
    return f"stopped by signal {code - _SIGNALLED}" if code > _SIGNALLED else f"exit code {code}, see its output"
