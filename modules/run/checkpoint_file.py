"""Checkpoint files: written whole or not at all, read without running code from them."""

from __future__ import annotations

import contextlib
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_warn

from config.errors import UserError
from modules.run.folder import step_of

TEMPORARY_PREFIX = ".writing-"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs and renames: a file with a final name is always whole.

    A failed write is kept in `error` instead of raised, because all processes wait for each other after it; the
    writer asks for it once they are together again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.error: OSError | RuntimeError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        target = Path(path)
        temporary = target.with_name(f"{TEMPORARY_PREFIX}{target.name}.tmp")  # no *.ckpt: nobody shall find it
        self.error = None
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            _sync_folder(target.parent)
        except (OSError, RuntimeError) as error:  # torch.save wraps a full disk in a RuntimeError
            self.error = error
            with contextlib.suppress(OSError):  # a disk that fails may fail here, too
                temporary.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Without running code from the file, whatever is asked for."""
        return torch.load(path, map_location=map_location, weights_only=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content, tensors mapped from the file. Raises UserError if it is not whole or not ours."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file")
    if not zipfile.is_zipfile(path):
        what = "is empty" if path.stat().st_size == 0 else "is cut short, or no checkpoint at all"
        raise UserError(f"{path} {what}: cannot be read as a checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # zip, pickle and torch each have errors of their own for a broken file
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{path}: cannot be read as a checkpoint ({type(error).__name__}): {reason}") from error
    if not isinstance(content, dict) or "config" not in content or "loops" not in content:
        raise UserError(f"{path}: not a checkpoint of a run, so it cannot be resumed. weights={path} takes its weights")
    return content


def newest_loadable(folder: Path) -> Path:
    """Return the checkpoint with the highest step that can be read. Raises UserError if there is none."""
    problems = []
    for path in sorted(folder.glob("*.ckpt"), key=lambda path: (step_of(path), path.name), reverse=True):
        try:
            read_checkpoint(path)
        except UserError as error:
            problems.append(str(error))
            rank_zero_warn(f"{error}; trying the one before")
            continue
        return path
    raise UserError(f"{folder}: no checkpoint to go on from. " + "; ".join(problems))
