"""The grid of a `--multirun` command: its members, each checked like a command of its own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from config import names
from config.errors import UserError
from config.loading import ROOTS, Loaded
from config.overrides import Rewritten, rewrite
from config.record import recordable
from config.schema import TrainConfig
from config.search_path import SearchPath
from config.sweeps import Member, group_name

GROUP = "wandb.group_name"


def runs_of(rewritten: Rewritten) -> tuple[list[list[str]], list[str]]:
    """The overrides of each run of a sweep, and the keys that tell them apart. Raises UserError for what is no list."""
    alternatives, swept = [], []
    for text in (*rewritten.choices, *rewritten.values):
        override = OverridesParser.create().parse_override(text)
        if override.is_sweep_override():
            texts = _values(override)
            swept.append(override.key_or_group)
        else:
            texts = [text]
        sign = "++" if override.key_or_group in rewritten.plain else ""
        alternatives.append([text.removeprefix(sign) for text in texts])
    return [list(run) for run in itertools.product(*alternatives)], swept


def _values(override: Override) -> list[str]:
    if not override.is_discrete_sweep():
        raise UserError(f"{override.key_or_group}: an interval has no end of values; list those that you want: 1,2,3")
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def members_of(
    config_name: str, runs: Sequence[Sequence[str]], swept: Sequence[str], loaded: Sequence[Loaded], search: SearchPath
) -> list[Member]:
    """Members of runs that have been loaded. Training members get a group in common, WandB's and the report's."""
    tree = names.key_tree(ROOTS[config_name])
    configs = [ROOTS[config_name](**each.sections) for each in loaded]
    group = None
    if config_name == "train":
        _check_members(configs)
        named = {config.wandb.group_name for config in configs}
        group = configs[0].wandb.group_name or os.environ.get("WANDB_RUN_GROUP") or group_name(runs[0], swept)
        if len(named) > 1:
            raise UserError(f"{GROUP} names the whole sweep: give it one value")
    members = []
    for run, config in zip(runs, configs, strict=True):
        if group is not None and config.wandb.group_name is None:
            run = [*run, f"{GROUP}={group}"]
            config = config.model_copy(update={"wandb": config.wandb.model_copy(update={"group_name": group})})
        told = {"dataset": {"path": str(config.dataset.path)}, "wandb": {"project_name": config.wandb.project_name}}
        command = recordable(["", *run], tree, OmegaConf.create(told))[1:]
        rewritten = rewrite(command, tree, search)
        label = " ".join(text.lstrip("+") for text in run if text.partition("=")[0].lstrip("+") in swept)
        own = [f"--config-dir={folder}" for folder in search.folders[1:]]
        overrides = (*rewritten.choices, *rewritten.values)
        members.append(Member(label or "(one run)", (*own, *command), overrides, config))
    return members


def _check_members(configs: Sequence[Any]) -> None:
    for config in configs:
        assert isinstance(config, TrainConfig)
        if config.resume is not None:
            raise UserError(
                f"resume={config.resume} goes on with one run. A --multirun command that is given again goes on with "
                "every member by itself: leave resume out"
            )
