"""The command that a run keeps: how it is written down, and what of one that was written down is believed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from config import names
from config.overrides import OVERRIDE, is_of_hydra
from config.quoting import unquote
from config.search_path import RECORDED
from config.secret_values import is_secret


def recordable(command: Sequence[str], tree: names.KeyTree, cfg: DictConfig) -> list[str]:
    """The command as it works in any folder and may be shown: with absolute paths, and without secrets of Hydra's."""
    out = list(command[:1])
    for text in command[1:]:
        override = OVERRIDE.fullmatch(text.strip())
        key, value = (override["key"], override["value"]) if override else ("", None)
        if is_of_hydra(key) and is_secret(key):
            continue  # hydra.job.env_set.WANDB_API_KEY: set by now, and processes started from here inherit it
        if value is not None and tree.is_path(key) and key != "resume":
            out.append(f"{text.partition('=')[0]}={_absolute(unquote(value))}")
        else:
            out.append(text)
    path = OmegaConf.select(cfg, "dataset.path")
    if isinstance(path, str) and not _sets(out, "dataset.path"):
        out += [] if Path(path).expanduser().is_absolute() else [f"dataset.path={_absolute(path)}"]
    project = os.environ.get("WANDB_PROJECT")  # the default of what is not typed; other shells have another
    if project and project == OmegaConf.select(cfg, "wandb.project_name") and not _sets(out, "wandb.project_name"):
        out.append(f"wandb.project_name={project}")
    return out


def _sets(command: Sequence[str], key: str) -> bool:
    return any(text.partition("=")[0].lstrip("+") == key for text in command)


def _absolute(path: str) -> str:
    """Text that is a path; null and interpolations stay."""
    return path if path == "null" or "${" in path else str(Path(path).expanduser().absolute())


def only_of_this_project(recorded: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides that a record may bring, and what it may not: flags, and Hydra's own node, which calls what it names.

    Anything else is checked like what is typed: it can set keys of the schema and choose files.
    """
    kept, refused = [], []
    for text in recorded:
        match = OVERRIDE.fullmatch(text.strip())
        ours = (
            match is not None
            and (match["value"] is not None or match["sign"] == "~")
            and not is_of_hydra(match["key"])
            and not text.strip().startswith("-")
        )
        is_folder = text.startswith(f"{RECORDED}/")  # pkg:// would import
        (kept if ours or is_folder else refused).append(text)
    return kept, refused
