"""What a file may set: its own section. YAML files come from other people, too, and Hydra calls what its node names.

`hydra.callbacks`, `hydra.job_logging` and others make Python import and call anything. That node is taken from the
project's root files and from what is typed, wherever a file of a group might want to bring one in.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from hydra.core.default_element import ResultDefault
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from config.composition import compose_files, take_hydra
from config.errors import Problem
from config.names import join
from config.origins import Origins
from config.search_path import SearchPath

GLOBAL = "# @package _global_"


def check_hydra(
    node: dict[str, Any], typed: Sequence[str], config_name: str, origins: Origins, search: SearchPath
) -> Iterator[Problem]:
    """Hydra's node must be what the root files and the `typed` overrides of it make by themselves."""
    try:
        if not any("hydra/" in override for override in typed):  # the user's folders may have choices of Hydra's groups
            search = SearchPath(search.folders[:1])
        compose_own = _own_node_of_project if search == SearchPath() else _own_node
        own = compose_own(config_name, tuple(typed), search)
    except (HydraException, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0]
        yield Problem("hydra", f"what is typed does not fit the project's own files: {reason}")
        return
    for name in sorted(node.keys() | own.keys()):
        if node.get(name) != own.get(name):
            message = "is set by a file of a group: Hydra would call what it names. Take it out of the file"
            yield Problem(f"hydra.{name}", message, origins.of(f"hydra.{name}"))


def _own_node(config_name: str, typed: tuple[str, ...], search: SearchPath) -> dict[str, Any]:
    return take_hydra(compose_files(config_name, ["dataset=base", *typed], search))


_own_node_of_project = functools.cache(_own_node)  # whose files stay as they are while a process runs


def check_targets(node: Any, key: str = "") -> Iterator[Problem]:
    """Nothing but Hydra's node has what Hydra instantiates."""
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in entries:
        inner = join(key, str(name))
        if name == "_target_":
            yield Problem(inner, f"is {value!r}, but nothing is instantiated here. A class of your own is module:Name")
        yield from check_targets(value, inner)


def check_files(origins: Origins, sections: Collection[str]) -> Iterator[Problem]:
    """Each file sets what it may, and none is hidden by another of the same name."""
    for member in origins.members:
        path = origins.file_of(member)
        if path is None:
            continue
        told = f"in {origins.search.told(path)}"
        group, _, name = (member.config_path or "").rpartition("/")
        others = [other for other in origins.search.files(member.config_path or "")[1:] if not other.samefile(path)]
        different = [other for other in others if other.read_bytes() != path.read_bytes()]
        if different:
            message = f"{name!r} is in two folders: {path} would be read, {different[0]} would not. Rename yours"
            yield Problem(group or name, message)
        if group.split("/")[0] == "experiment" and not _names_package(path):
            message = (
                f"is a file of an experiment, which lacks its first line. Add it, to let it set sections: {GLOBAL}"
            )
            yield Problem(group, message, told)
        yield from _check_package(member, told, sections)


def _names_package(path: Path) -> bool:
    """In one of the comments that a file begins with, as Hydra reads them."""
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return any("@package " in line for line in takewhile(lambda line: line.startswith("#"), lines))


def _check_package(member: ResultDefault, told: str, sections: Collection[str]) -> Iterator[Problem]:
    package = (member.package or "").split(".")[0]
    # an experiment sets any section; what it is called stands in one of the same name
    for file in (member.config_path or "", member.parent or ""):  # what a file includes counts as its own
        group = file.split("/")[0]
        if "/" in file and group in sections and package != group and group != "experiment":
            wanted = member.package or "any section"
            message = f"a file of {group}/ sets {group} only, but {file} sets {wanted}"
            yield Problem(group, f"{message}; is it {GLOBAL} in its first line?", told)
            return
    if "/" in (member.config_path or "") and package and package not in sections:
        message = f"there is no such section. Is this the first line of the file? {GLOBAL}"
        yield Problem(package, message, told)
