"""Checkpoint files: written whole or not at all, read without running code from them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_warn

from config.errors import UserError
from models.weights.file import HoldsCodeError, read_file
from modules.run.checkpoint_content import check_content
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
        """Without running code from the file, whatever is asked for; what has changed since the check is found, too."""
        content = read_file(Path(path), mapped=False)
        check_content(content, Path(path))
        return content


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content, tensors mapped from the file.

    Raises UserError if it is damaged, not ours, or holds anything that a run could not have written.
    """
    try:
        content = read_file(path)
    except HoldsCodeError as error:
        raise UserError(
            f"{path} cannot be read as a checkpoint of a run: it holds more than data, which train.py never writes"
        ) from error
    check_content(content, path)
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
