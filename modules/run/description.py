"""What a run is: what was asked, on which machine, with which code and data."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from config.hardware import Device
from config.launch import read_launch
from config.processor import bfloat16_units, processor_name
from config.schema import Config
from data.index import SplitIndex
from models.layers.kernels import describe_kernels
from modules.run.company import node
from modules.run.meeting import company
from modules.run.processes import world_size
from modules.run.requeue import job_names
from modules.run.writing import write_json
from modules.stage import Stage

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "timm", "numpy", "h5py", "pycocotools", "wandb")


def write_description(
    folder: Path, argv: Sequence[str], config: Config, device: Device, data: Mapping[str, Any]
) -> None:
    """Write command.txt, config.yaml and environment.json into a folder; earlier commands of a resumed run stay.

    Args:
        data: what is read, as `describe_split` or `describe_stages` tell it.
    """
    command = shlex.join(["python", *argv])
    with (folder / "command.txt").open("a") as file:
        file.write(command + "\n")
    (folder / "config.yaml").write_text(
        yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    )
    patch = _git("diff", "HEAD")
    if patch:
        (folder / "uncommitted.patch").write_text(patch)
    launch, fellows = read_launch(), company()
    content = {
        **describe_environment(),
        "launcher": launch.launcher,
        "world_size": world_size(device),
        "nodes": fellows.node_names if fellows is not None else [node()],
        "job": job_names(),  # what a job that is started again finds its run by
        "precision": device.precision,
        "kernels": describe_kernels(*_computes_in(device)),
        "dataset": data,
    }
    write_json(folder / "environment.json", content)


def describe_environment() -> dict[str, Any]:
    """Return the time, machine, code and library versions."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "system": platform.platform(),
        "cpu": processor_name() or platform.processor(),
        "cpu_bfloat16": bfloat16_units(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "git_commit": _git("rev-parse", "HEAD").strip() or None,
        "git_uncommitted_changes": bool(_git("status", "--porcelain").strip()),
    }


def _computes_in(device: Device) -> tuple[str, torch.dtype]:
    """The device's type, and the type of matrix products."""
    by_precision = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    return "cuda" if device.indices else "cpu", by_precision.get(device.precision, torch.float32)


def describe_split(split: SplitIndex) -> dict[str, Any]:
    """Return what a split holds, and a digest that two copies of the same preprocessed data share."""
    digest = hashlib.sha256("\n".join(split.names.tolist()).encode())
    for array in (split.num_frames, split.label_frame, split.class_counts):
        digest.update(array.tobytes())
    return {
        "folder": str(split.split),
        "sequences": len(split),
        "frames": int(split.num_frames.sum()),
        "labelled_frames": len(split.label_frame),
        "boxes_per_class": split.class_counts.sum(axis=0).tolist(),
        "digest": digest.hexdigest()[:16],
    }


def describe_stage(stage: Stage, splits: Sequence[SplitIndex]) -> dict[str, Any]:
    """Return what a run reads, or a stage of it."""
    told = {split.split.name: describe_split(split) for split in splits}
    return (
        {"stage": stage.number, "frame_hw": list(stage.config.dataset.loaded_hw), **told} if stage.is_staged else told
    )


def describe_stages(folder: Path, found: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """Return what all stages of a run read, as found by number; the others, which have ended, as `folder` has them."""
    earlier = {each["stage"]: each for each in _recorded_stages(folder / "environment.json")}
    known = {number: each for number, each in earlier.items() if number < min(found)}
    return {"stages": [each for _, each in sorted({**known, **found}.items())]}


def _recorded_stages(path: Path) -> list[dict[str, Any]]:
    try:
        stages = json.loads(path.read_text())["dataset"]["stages"]
    except (OSError, ValueError, LookupError, TypeError):  # of a run that is new, or had no such record
        return []
    told = stages if isinstance(stages, list) else []
    return [each for each in told if isinstance(each, dict) and isinstance(each.get("stage"), int)]


def _git(*arguments: str) -> str:
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
