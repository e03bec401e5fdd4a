"""Weights in our names as safetensors, with config, classes and a checksum in the header: what is shared and kept.

The format holds nothing but tensors and texts, and any program can read it. It has no checksum of its own.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from config.errors import UserError

SUFFIX = ".safetensors"
STATE_DICT = "state_dict"


def write_portable(path: Path, weights: Mapping[str, Tensor], config: dict[str, Any]) -> None:
    """Write a detector's weights, whole or not at all. Raises UserError where the disk refuses.

    Args:
        weights: in our names.
        config: as JSON, by section; its data set tells the classes.
    """
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in weights.items()}
    texts = {"config": json.dumps(config), "classes": json.dumps(list(config["dataset"]["classes"]))}
    partial = path.with_name(f".partial_{path.name}")
    try:
        save_file(tensors, partial, {"format": "pt", **texts, "crc32": str(_checksum(tensors, texts))})
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def is_portable(path: Path) -> bool:
    """Told by its first bytes: the length of a JSON header, then the header."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == SUFFIX or (start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size)


def read_portable(path: Path) -> dict[str, Any]:
    """The content, laid out as a checkpoint of ours: state_dict and, where we have written the file, config.

    Raises:
        UserError: damaged, or no safetensors at all.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            texts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, MemoryError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{path} cannot be read as safetensors: damaged, cut short, or none at all") from error
    content: dict[str, Any] = {STATE_DICT: tensors}
    kept = {key: texts[key] for key in ("config", "classes") if key in texts}
    if kept and texts.get("crc32") != str(_checksum(tensors, kept)):
        raise UserError(f"{path} is damaged: its content differs from its checksum. Take another copy of it")
    if "config" in kept:
        content["config"] = json.loads(kept["config"])
    return content


def _checksum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> int:
    """Over all that the file means, names, types and shapes included, in whatever order they stand."""
    crc = zlib.crc32(json.dumps(dict(sorted(texts.items()))).encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, crc)
    return crc
