"""From overrides as typed on a command line to checked, typed objects.

`load` reports every mistake at once as one ConfigError: names and grammar of the overrides (`config.overrides`),
missing values, types and ranges (`config.schema`), contradictions (`config.checks`), each with where it was set.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from config import names
from config.checks import CHECKS, MACHINE_CHECKS
from config.composition import apply_values, compose_files, exists, take_hydra, to_plain
from config.errors import ConfigError, Problem, UserError
from config.inherited import check_inherited_ids
from config.origins import Origins
from config.overrides import Rewritten, rewrite
from config.remarks import check_idle_settings, check_typed_size, remarks
from config.schema import Config, DatasetConfig, TrainConfig, TrainingConfig, ValidationConfig
from config.search_path import CONFIG_FOLDER, SearchPath
from config.secret_values import check_secrets
from config.sections import check_sections, is_under
from config.stages import check_stages, in_normal_form
from config.trust import check_files, check_hydra, check_targets

ROOTS: dict[str, type[Config]] = {"train": TrainConfig, "val": ValidationConfig}
STAND_IN = "dataset=base"
_REFUSALS = (HydraException, OmegaConfBaseException, UserError, yaml.YAMLError)


@dataclass(frozen=True)
class Loaded:
    """Typed sections by name."""

    sections: dict[str, Any]
    warnings: tuple[str, ...]


def load_train_config(overrides: Sequence[str]) -> TrainConfig:
    """Compose config/train.yaml with overrides such as `dataset=toy` and check it; ConfigError tells all mistakes."""
    return TrainConfig(**_warned(load("train", overrides)).sections)


def load_validation_config(overrides: Sequence[str]) -> ValidationConfig:
    """Compose config/val.yaml with overrides such as `checkpoint=last.ckpt` and check it."""
    return ValidationConfig(**_warned(load("val", overrides)).sections)


def load_dataset_config(overrides: Sequence[str]) -> DatasetConfig:
    """The data set alone, of overrides such as `dataset=gen4` and `dataset.path=...`; the path may be left out."""
    return _warned(load("train", ["dataset.path=.", *overrides], only="dataset")).sections["dataset"]


def load(
    config_name: str,
    overrides: Sequence[str],
    *,
    only: str | None = None,
    on_this_machine: bool = False,
    folder: Path = CONFIG_FOLDER,
) -> Loaded:
    """Compose and check `train` or `val`, or one section of it. Raises ConfigError with every mistake found.

    `on_this_machine` asks for the files and GPUs that the config names, too. `folder` holds the project's YAML files;
    `overrides` may name others, as `--config-dir=FOLDER`.
    """
    search, overrides = SearchPath.split(overrides, folder)
    rewritten = rewrite(overrides, names.key_tree(ROOTS[config_name]), search)
    composed = compose_checked(config_name, rewritten, search)
    cfg, origins, problems = composed.cfg, composed.origins, [*rewritten.problems, *composed.problems]
    for key in rewritten.plain:
        if not exists(key, cfg) and not is_under(key, [typed for typed in rewritten.typed if typed != key]):
            message = f"no file sets this key; add it with a plus: +{rewritten.typed[key]}"
            problems.append(Problem(key, message, origins.of(key)))
    before = copy.deepcopy(cfg)
    with _telling(problems):
        apply_values(rewritten.values, cfg)
    unresolved = OmegaConf.to_container(cfg, resolve=False)
    secrets = {p.key: p for p in (*check_secrets(to_plain(cfg)[0]), *check_secrets(unresolved))}
    for problem in (*check_targets(unresolved), *secrets.values()):
        problems.append(replace(problem, origin=origins.of(problem.key)))
    checks = (*CHECKS, *MACHINE_CHECKS) if on_this_machine else CHECKS
    checked = check_sections(ROOTS[config_name], cfg, origins, checks, only=only, before=before)
    dataset, training = (checked.sections.get(name) for name in ("dataset", "training"))
    stages = training.stages if isinstance(training, TrainingConfig) else None
    if isinstance(dataset, DatasetConfig) and stages is None:  # else each stage has frames of its own to ask
        typed_size = check_typed_size(dataset, rewritten.typed)
        problems += [replace(problem, origin=origins.of(problem.key)) for problem in typed_size]
    problems += check_idle_settings(checked.sections, origins)
    told = {problem.key for problem in problems}
    problems += [p for p in checked.problems if p.key not in told and not (p.key == "model" and _chooses_badly(told))]
    if composed.lacks_dataset:  # most of its mistakes are not the user's
        problems = [p for p in problems if not is_under(p.key, ["dataset"]) or p.key in ("dataset", "dataset.path")]
        if not rewritten.chooses_dataset:
            problems.insert(0, not_chosen(search))
    config = ROOTS[config_name].model_construct(**checked.sections)
    if only is None and not problems:
        problems += [
            replace(problem, origin=origins.of(problem.key)) for problem in check_stages(config, origins, checks)
        ]
    if problems:
        raise ConfigError(problems)
    sections = checked.sections if only is not None else _sections(in_normal_form(config))
    told_too = remarks(sections, rewritten.typed)
    return Loaded(sections, (*rewritten.warnings, *checked.warnings, *told_too))


def _sections(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.model_fields_set}


@dataclass(frozen=True)
class Composed:
    """The merged files without the overrides of single keys, and what they may not set."""

    cfg: DictConfig
    origins: Origins
    problems: list[Problem]

    @property
    def lacks_dataset(self) -> bool:
        """None is chosen, and another stands in."""
        return STAND_IN in self.origins.choices


def not_chosen(search: SearchPath) -> Problem:
    return Problem("dataset", "is not chosen:\n" + search.listing("dataset"))


def compose_checked(config_name: str, rewritten: Rewritten, search: SearchPath) -> Composed:
    """The merged files of a root config and of the chosen groups; a stand-in where no data set is chosen."""
    choices = [*rewritten.of_hydra, *rewritten.choices]
    with _telling(rewritten.problems):
        try:
            cfg = compose_files(config_name, choices, search)
        except HydraException:
            if any(choice.startswith("dataset=") for choice in choices):
                raise
            choices = [*choices, STAND_IN]  # so that the other mistakes are found as well
            cfg = compose_files(config_name, choices, search)
        origins = Origins(rewritten.typed, choices, config_name, search)
        problems = list(check_hydra(take_hydra(cfg), rewritten.of_hydra, config_name, origins, search))
        problems += check_files(origins, ROOTS[config_name].model_fields)
        problems += check_inherited_ids(origins)
    return Composed(cfg, origins, problems)


@contextlib.contextmanager
def _telling(problems: Sequence[Problem]) -> Generator[None]:
    """What Hydra and the YAML reader refuse ends the search for mistakes."""
    try:
        yield
    except ConfigError:
        raise
    except (*_REFUSALS, OSError, RecursionError, ValueError) as error:
        raise ConfigError([*problems, Problem("", f"the configuration cannot be composed: {error}")]) from error


def check_composed(config_name: str, cfg: DictConfig) -> Config:
    """Typed config of what Hydra composed from overrides that `load` has accepted."""
    root = ROOTS[config_name]
    checked = check_sections(root, cfg, Origins({}, (), config_name, SearchPath()), CHECKS)
    if checked.problems:
        raise ConfigError(checked.problems)
    return in_normal_form(root(**checked.sections))


def _chooses_badly(told: set[str]) -> bool:
    """A mistyped experiment would have brought the model that is missing now."""
    return any(key.split("/")[0] in ("model", "experiment") for key in told)


def _warned(loaded: Loaded) -> Loaded:
    for text in loaded.warnings:
        warnings.warn(text, stacklevel=3)
    return loaded
