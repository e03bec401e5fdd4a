"""Members of a sweep: which run folder a config has, if any, and how far it has come."""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from config.errors import UserError
from config.schema import TrainConfig
from config.sweeps import WITHOUT_EFFECT, Kind, Progress
from config.yaml_files import read_yaml
from modules.run.folder import RunFolder, step_of

_FINISHED = ("finished", "finished early")
_BEST_FIRST = ("finished", "running", "half-done", "failed", "new")


def progress(config: TrainConfig) -> Progress | None:
    """The member's furthest run in its project's folder: of the same group, with the same settings.

    A config without a seed has the seed that its run has drawn. None: it leaves no run.
    """
    if config.check:
        return None
    project = config.run_root.expanduser() / config.wandb.project_name
    wanted, seed = _identity(config), config.reproduce.seed_everything
    found = [Progress()]
    for file in sorted(project.glob("*/config.yaml")):
        with contextlib.suppress(FileNotFoundError):
            same, of_seed = _identity_in(file, file.stat().st_mtime_ns)
            if same == wanted and seed in (None, of_seed):
                found.append(_progress_of(RunFolder(file.parent.absolute())))
    return min(found, key=lambda each: _BEST_FIRST.index(each.state))


def resumed(config: TrainConfig, run: Path) -> TrainConfig:
    return config.model_copy(update={"resume": str(run)})


TRAINING = Kind(progress, resumed)


def _progress_of(run: RunFolder) -> Progress:
    if _status(run) in _FINISHED:
        return Progress("finished", str(run.path), run.path)
    if run.is_locked():
        return Progress("running", str(run.path), run.path)
    steps = [step_of(file) for file in run.checkpoints.glob("*.ckpt")]
    if steps:
        return Progress("half-done", f"{run.path}, step {max(steps)}", run.path)
    return Progress("failed", f"{run.path} has no checkpoint", run.path)


def _status(run: RunFolder) -> str | None:
    try:
        return json.loads((run.path / "results.json").read_text())["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


@functools.lru_cache(maxsize=10_000)
def _identity_in(file: Path, mtime_ns: int) -> tuple[str | None, Any]:
    """Identity and seed of a recorded config; None for one of other versions, which is no run of this sweep."""
    try:
        config = TrainConfig.model_validate(read_yaml(file))
    except (UserError, ValidationError):
        return None, None
    return _identity(config), config.reproduce.seed_everything


def _identity(config: TrainConfig) -> str:
    content = config.model_dump(mode="json")
    content["dataset"]["path"] = str(config.dataset.path.expanduser().absolute())
    for key in (*WITHOUT_EFFECT, "reproduce.seed_everything"):
        *sections, name = key.split(".")
        section = content
        for each in sections:
            section = section[each]
        del section[name]
    return json.dumps(content, sort_keys=True)
