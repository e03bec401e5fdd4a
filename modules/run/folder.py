"""One run, one folder: runs/<project>/<run id>/."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import secrets
import shutil
import stat
import string
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import IO

from config.errors import UserError

ID_LENGTH = 8  # as WandB's


class RunFolder:
    """Where a run keeps everything. Made new, never over an old one; a resumed run goes on in its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @classmethod
    def create(cls, project_folder: Path) -> RunFolder:
        """Make a folder with a new id. Two runs of the same second get two folders."""
        alphabet = string.ascii_lowercase + string.digits
        try:
            project_folder.mkdir(parents=True, exist_ok=True)
            while True:
                path = project_folder / "".join(secrets.choice(alphabet) for _ in range(ID_LENGTH))
                try:
                    path.mkdir()
                    break
                except FileExistsError:
                    continue
            run = cls(path)
            run.checkpoints.mkdir()
        except OSError as error:
            raise UserError(f"{project_folder}: the run folder cannot be made: {error}. Set run_root=FOLDER") from error
        return run

    @classmethod
    def find(cls, project_folder: Path, wanted: str) -> tuple[RunFolder, Path | None]:
        """Return the run that `resume=` means, and the checkpoint if its path was given.

        `wanted` is `latest`, a run id, the path of a run folder, or the path of a checkpoint in one.
        """
        path = Path(wanted).expanduser()
        if wanted == "latest":
            newest = _newest(project_folder.glob("*/checkpoints/*.ckpt"))
            if newest is None:
                raise UserError(f"resume=latest: no run with a checkpoint under {project_folder}. Leave resume= out")
            return cls._existing(newest.parent.parent), None
        if path.is_file():
            run = run_of_checkpoint(path)
            if run is None:
                raise UserError(
                    f"resume={wanted}: not inside a run folder (RUN/checkpoints/NAME.ckpt). "
                    f"weights={wanted} starts a new run from it"
                )
            return cls._existing(run.path), path
        for candidate in (path, project_folder / wanted, *project_folder.parent.glob(f"*/{glob.escape(wanted)}")):
            if (candidate / "checkpoints").is_dir():
                return cls._existing(candidate.resolve()), None
        known = ", ".join(sorted(run.name for run in project_folder.glob("*") if run.is_dir())) or "none"
        raise UserError(f"resume={wanted}: no such run, folder or checkpoint. Runs under {project_folder}: {known}")

    @classmethod
    def _existing(cls, path: Path) -> RunFolder:
        """A folder that the run goes on in. It may come from somebody else: links in it would write elsewhere."""
        root = os.path.realpath(path)
        for where, folders, files in os.walk(path):
            for entry in (Path(where, name) for name in (*folders, *files)):
                with contextlib.suppress(FileNotFoundError):  # the run may be alive
                    mode = entry.lstat().st_mode
                    if stat.S_ISLNK(mode) and not Path(os.path.realpath(entry)).is_relative_to(root):
                        told = f"{entry} is a link out of the run's folder, to {entry.readlink()}"
                        raise UserError(f"{told}. Put there what it points to; run_root=FOLDER moves whole runs")
                    if not (stat.S_ISLNK(mode) or stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                        raise UserError(f"{entry} is no file but a pipe, socket or device. Remove it")
        return cls(path)

    @contextlib.contextmanager
    def kept_if_the_start_works(self) -> Generator[None]:
        """Remove a new run's folder again if nothing has been written into it before a mistake is found or a signal."""
        try:
            yield
        except BaseException:
            if not any(path.is_file() and path.name != ".lock" for path in self.path.rglob("*")):
                shutil.rmtree(self.path, ignore_errors=True)
            raise

    def set_aside_later_than(self, checkpoint: Path) -> list[Path]:
        """Move checkpoints of later steps to checkpoints/abandoned: else `resume=latest` would mix two histories."""
        moved = []
        for path in sorted(self.checkpoints.glob("*.ckpt")):
            if step_of(path) > step_of(checkpoint):
                moved.append(self.checkpoints / "abandoned" / path.name)
                moved[-1].parent.mkdir(exist_ok=True)
                path.replace(moved[-1])
        return moved

    def lock(self) -> None:
        """Keep a second process from writing into the same run; the lock ends with the process."""
        try:
            self._lock = (self.path / ".lock").open("a")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written, so nothing of the run could be kept: {error}") from error
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, forked workers do not hold it
        except (BlockingIOError, PermissionError) as error:
            raise UserError(f"{self.path}: another process is training in this run folder. Stop it first") from error

    def is_locked(self) -> bool:
        """Whether another process is writing into the run."""
        try:
            with (self.path / ".lock").open("r+") as file:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            return False
        return False


def run_of_checkpoint(checkpoint: Path) -> RunFolder | None:
    """Return the run folder that a checkpoint lies in, or None if it lies elsewhere."""
    folder = checkpoint.resolve().parent
    inside = folder.name == "checkpoints" and (folder.parent / "config.yaml").is_file()
    return RunFolder(folder.parent) if inside else None


def step_of(path: Path) -> int:
    """Return the training step that a checkpoint's name tells, -1 if it tells none."""
    match = re.search(r"step=(\d+)", path.name)
    return int(match[1]) if match else -1


def newest_project(root: Path) -> str | None:
    newest = _newest(root.glob("*/*/checkpoints/*.ckpt"))
    return newest.parents[2].name if newest else None


def _newest(files: Iterable[Path]) -> Path | None:
    """The file written last. A running training may remove one at any moment."""
    times = {}
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            times[file] = file.stat().st_mtime
    return max(times, key=times.__getitem__, default=None)
