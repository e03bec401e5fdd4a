"""Hydra's composition of the YAML files, and its result as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from config.errors import Problem
from config.names import join

MISSING = "???"


def compose_files(config_name: str, overrides: Sequence[str], folder: Path) -> tuple[DictConfig, list[ResultDefault]]:
    """The composed config and the files it is made of; later ones win."""
    with initialize_config_dir(str(folder), version_base="1.3"):
        cfg = compose(config_name, list(overrides))
        loader = GlobalHydra.instance().config_loader()
        defaults = loader.compute_defaults_list(config_name, list(overrides), RunMode.RUN)
    return cfg, [member for member in defaults.defaults if not (member.config_path or "").startswith("hydra")]


def exists(key: str, cfg: DictConfig) -> bool:
    """True if a file sets the key; what lies under a missing section counts as set, since that is reported anyway."""
    node: Any = OmegaConf.to_container(cfg, resolve=False)
    for part in key.split("."):
        if node == MISSING:
            return True
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def to_plain(cfg: DictConfig) -> tuple[dict[str, Any], list[str], list[Problem]]:
    """Resolve a config into plain values, with the keys that are missing and the interpolations that fail.

    Both keep `???` as their value, so that all of them are found at once.
    """
    missing: list[str] = []
    problems: list[Problem] = []

    def plain(node: Any, key: str) -> Any:
        if isinstance(node, DictConfig) and not node._is_none():
            return {name: child(node, name, join(key, str(name))) for name in node}
        if isinstance(node, ListConfig) and not node._is_none():
            return [child(node, index, f"{key}.{index}") for index in range(len(node))]
        return node

    def child(parent: DictConfig | ListConfig, name: Any, key: str) -> Any:
        if OmegaConf.is_missing(parent, name):
            if not OmegaConf.is_interpolation(parent, name):
                missing.append(key)
            return MISSING
        try:
            return plain(parent[name], key)
        except InterpolationToMissingValueError:
            return MISSING
        except OmegaConfBaseException as error:
            problems.append(Problem(key, f"cannot be resolved: {str(error).splitlines()[0]}"))
            return MISSING

    return plain(cfg, ""), missing, problems
