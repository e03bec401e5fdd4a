"""What a config names on this machine: folders, files, devices."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from config.errors import Problem, UserError
from config.hardware import count_gpus, decide_device
from config.launch import read_launch
from config.schema import Config, TrainConfig, ValidationConfig

WANDB_MODES = ("online", "offline", "disabled", "dryrun", "run", "shared")


def check_folder(config: Config) -> Iterator[Problem]:
    path = config.dataset.path
    if not path.is_dir():
        yield Problem("dataset.path", f"{path} is not a folder{_neighbours(path)}")
    elif not any((path / split).is_dir() for split in ("train", "val", "test")):
        yield Problem(
            "dataset.path",
            f"{path} holds none of train, val, test; scripts/preprocess.py makes them from recordings",
        )


def check_checkpoints(config: Config) -> Iterator[Problem]:
    """Checkpoints named by path must exist; `resume` may also be `latest` or a run id."""
    paths: dict[str, Path | None] = {}
    if isinstance(config, ValidationConfig):
        paths["checkpoint"] = config.checkpoint
    if isinstance(config, TrainConfig):
        paths["weights"] = config.weights
        is_path = config.resume is not None and ("/" in config.resume or config.resume.endswith(".ckpt"))
        paths["resume"] = Path(config.resume or "") if is_path else None
    for key, path in paths.items():
        if path is not None and not path.exists():
            yield Problem(key, f"{path} does not exist{_neighbours(path)}")


def check_devices(config: Config) -> Iterator[Problem]:
    launch = read_launch()
    try:
        decide_device(config.hardware.gpus, None, count_gpus(), launch=launch)
    except UserError as error:
        yield Problem("hardware.gpus", str(error))
    wanted = config.hardware.num_nodes
    if wanted is not None and wanted != launch.num_nodes:
        started = f"{launch.launcher} has started it on {launch.num_nodes}" if launch.has_launcher else "this is one"
        command = replace(launch, launcher=launch.launcher if launch.has_launcher else "torchrun", num_nodes=wanted)
        remedy = f"{command.command(launch.local_world_size)}, or leave hardware.num_nodes out"
        yield Problem("hardware.num_nodes", f"is {wanted}, but {started}: {remedy}")


def check_wandb_mode(config: Config) -> Iterator[Problem]:
    mode = os.environ.get("WANDB_MODE") or "online"
    if "wandb" in config.loggers and mode not in WANDB_MODES:
        yield Problem("WANDB_MODE", f"is {mode!r} in the environment; allowed: {', '.join(WANDB_MODES)}")


def _neighbours(path: Path) -> str:
    """What the deepest folder that exists holds instead, the most similar names first."""
    parent = next((parent for parent in path.absolute().parents if parent.is_dir()), None)
    if parent is None:
        return ""
    try:
        entries = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
    except OSError:
        return ""
    similar = difflib.get_close_matches(path.absolute().relative_to(parent).parts[0], entries)
    entries = [*similar, *(entry for entry in entries if entry not in similar)]
    shown = ", ".join(entries[:6]) + (", ..." if len(entries) > 6 else "")
    return f"; {parent} holds {shown or 'nothing'}"
