"""Hydra's composition of the YAML files, and its result as plain values."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from config.errors import Problem
from config.names import join
from config.search_path import SearchPath
from config.user_files import rewrite_user_files
from config.yaml_files import checked_files

MISSING = "???"
rewrite_user_files()

# ${env:NAME,default}: a variable that is set to nothing counts as not set, as for most programs that read variables
OmegaConf.register_new_resolver("env", lambda name, default: os.environ.get(name) or default, replace=True)


def compose_files(config_name: str, choices: Sequence[str], search: SearchPath) -> DictConfig:
    """The YAML files of a root config and of the chosen groups, merged; with the `hydra` node."""
    with _hydra(search):
        return compose(config_name, [*choices, *search.overrides], return_hydra_config=True)


def take_hydra(cfg: DictConfig) -> dict[str, Any]:
    """Remove Hydra's own node from a composed config, and return what it would do, unresolved."""
    with open_dict(cfg):
        node: Any = OmegaConf.to_container(cfg.pop("hydra"), resolve=False)
    for told in ("overrides", "runtime", "searchpath"):  # what was composed, not what is done
        del node[told]
    del node["job"]["override_dirname"]
    return node


def apply_values(values: Sequence[str], cfg: DictConfig) -> None:
    """Apply overrides of keys as Hydra does."""
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(list(values)), cfg)


def member_files(config_name: str, choices: Sequence[str], search: SearchPath) -> list[ResultDefault]:
    """The files that a config is made of; later ones win."""
    with _hydra(search):
        loader = GlobalHydra.instance().config_loader()
        overrides = [*choices, *search.overrides]
        defaults = loader.compute_defaults_list(config_name, overrides, RunMode.RUN).defaults
    return [member for member in defaults if not (member.config_path or "").startswith("hydra")]


@contextlib.contextmanager
def _hydra(search: SearchPath) -> Generator[None]:
    """Hydra for the project's folder, also inside of a run that Hydra started."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(search.folders[0]), version_base="1.3"), checked_files():
            yield
    finally:
        GlobalHydra.instance().hydra = running


def exists(key: str, cfg: DictConfig) -> bool:
    """True if a file sets the key; what lies under a missing section counts as set, since that is reported anyway."""
    node: Any = OmegaConf.to_container(cfg, resolve=False)
    for part in key.split("."):
        if node == MISSING:
            return True
        entries = dict(enumerate(node)) if isinstance(node, list) else node if isinstance(node, dict) else {}
        names = {str(name): value for name, value in entries.items()}
        if part not in names:
            return False
        node = names[part]
    return True


def to_plain(cfg: DictConfig) -> tuple[dict[str, Any], list[str], list[Problem]]:
    """Resolve a config into plain values, with the keys that are missing and the interpolations that fail.

    Both keep `???` as their value, so that all of them are found at once.
    """
    missing: list[str] = []
    problems: list[Problem] = []

    def plain(node: Any, key: str) -> Any:
        if isinstance(node, DictConfig) and not node._is_none():
            return {str(name): child(node, name, join(key, str(name))) for name in node}
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
