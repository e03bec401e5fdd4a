"""From a composed config to typed sections: missing values, types, ranges, contradictions."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from config import names, retired
from config.checks import SectionCheck
from config.checks.network import bare_sections, skeleton_problem
from config.composition import to_plain
from config.errors import Problem
from config.messages import problems_of
from config.origins import Origins
from config.schema import Config


@dataclass
class Checked:
    """Valid sections by name, and what there is to say."""

    sections: dict[str, Any]
    problems: list[Problem]
    warnings: list[str]


def check_sections(
    root: type[Config],
    cfg: DictConfig,
    origins: Origins,
    checks: Sequence[SectionCheck],
    *,
    only: str | None = None,
    before: DictConfig | None = None,
) -> Checked:
    """Check all sections of a config, or one.

    `before` is the config without the overrides of single keys: contradictions are looked for with its values in place
    of invalid ones, so that one mistake does not hide another.
    """
    raw, missing, problems = _plain(root, cfg, only)
    warnings: list[str] = []
    out = retired.take_out(raw)
    for key, value in out.items():
        verdict = retired.judge(key, value, origin="")
        if isinstance(verdict, Problem):  # a config that Hydra has composed anew has none, and no origins
            problems.append(replace(verdict, origin=origins.of(key)))
        elif verdict is not None:
            warnings.append(verdict)
    other = retired.not_plain(raw)
    if other and (str(out.get(retired.PLAIN)).lower() == "true" or retired.PLAIN in origins.typed):
        message = f"is true, which contradicts {other}. Leave one of them"
        problems.append(Problem(retired.PLAIN, message, origins.of(retired.PLAIN)))
    bare = bare_sections(raw)
    if bare:
        problems.append(skeleton_problem(bare, origins.search))
    missing = [key for key in missing if key not in retired.DERIVED and retired.retired_key(key) is None]
    problems += [Problem(key, _how_to_give(key), origins.of(key)) for key in missing if not is_under(key, bare)]

    sections, invalid = _typed(root, raw, origins, only)
    copies = _copies(cfg, invalid)
    problems += [problem for problem in invalid if not is_under(problem.key, [*missing, *bare, *copies])]
    mended = sections
    if invalid and before is not None:
        fallback = _plain(root, before, only)[0]
        retired.take_out(fallback)
        mended, _ = _typed(root, _mended(raw, fallback, [problem.key for problem in invalid]), origins, only)
    partial = root.model_construct(**mended)
    told = [*missing, *(problem.key for problem in problems)]
    for reads, check in checks:
        if all(name in mended for name in reads):
            found = [problem for problem in check(partial) if not is_under(problem.key, told)]
            problems += [replace(problem, origin=origins.of(problem.key)) for problem in found]
    return Checked(sections, problems, warnings)


def is_under(key: str, sections: Sequence[str]) -> bool:
    """True if `key` is one of `sections`, or lies in one."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _plain(root: type[Config], cfg: DictConfig, only: str | None) -> tuple[dict[str, Any], list[str], list[Problem]]:
    """Plain values. Files are merged, so that null takes an entry of a map away that another file has."""
    raw, missing, problems = to_plain(cfg if only is None else OmegaConf.masked_copy(cfg, only))
    for key in names.key_tree(root).mappings_without_null():
        *sections, name = key.split(".")
        node: Any = raw
        for section in sections:
            node = node.get(section) if isinstance(node, dict) else None
        if isinstance(node, dict) and isinstance(node.get(name), dict):
            node[name] = {entry: value for entry, value in node[name].items() if value is not None}
    return raw, missing, problems


def _typed(
    root: type[Config], raw: dict[str, Any], origins: Origins, only: str | None
) -> tuple[dict[str, Any], list[Problem]]:
    """Valid sections by name, and what is wrong with the others. As JSON, lists pass for tuples in strict checks."""
    sections, problems = {}, []
    tree = names.key_tree(root)
    for name in raw.keys() - root.model_fields.keys():
        problems.append(Problem(name, names.unknown_key_message(name, tree), origins.of(name)))
    for name, info in root.model_fields.items():
        if only not in (None, name):
            continue
        if name not in raw:
            problems.append(Problem(name, "is missing: no file and no override sets it"))
            continue
        try:
            annotation: Any = Annotated[info.annotation, info]  # type: ignore[not-a-type]  # made at run time
            adapter = TypeAdapter(annotation)
            sections[name] = adapter.validate_json(json.dumps(raw[name]), strict=True)
        except ValidationError as error:
            problems += problems_of(error, name, raw, tree, origins)
    return sections, problems


def _copies(cfg: DictConfig, problems: Sequence[Problem]) -> list[str]:
    """Keys that are wrong because they repeat the wrong value of another key, as ${..max_steps} does."""
    messages = [problem.message for problem in problems]
    keys = []
    for problem in problems:
        section, _, name = problem.key.rpartition(".")
        node = OmegaConf.select(cfg, section) if section else cfg
        if isinstance(node, DictConfig) and name in node and OmegaConf.is_interpolation(node, name):
            keys += [problem.key] if messages.count(problem.message) > 1 else []
    return keys


def _mended(raw: dict[str, Any], fallback: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A copy of `raw` where `keys` have the values of `fallback`, or are gone."""
    mended = copy.deepcopy(raw)
    for key in keys:
        *sections, name = key.split(".")
        node, source = mended, fallback
        for section in sections:
            node = node.get(section, {}) if isinstance(node, dict) else {}
            source = source.get(section, {}) if isinstance(source, dict) else {}
        if isinstance(source, dict) and name in source:
            node[name] = source[name]
        elif isinstance(node, dict):
            node.pop(name, None)
    return mended


def _how_to_give(key: str) -> str:
    example = {"dataset.path": "FOLDER", "checkpoint": "FILE.ckpt"}.get(key, "VALUE")
    return f"is missing; give {key}={example}"
