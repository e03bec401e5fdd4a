"""A data set that inherits from another, with classes of its own: Hydra merges the ids and groups of both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config.errors import Problem
from config.origins import Origins
from config.schema import DatasetConfig
from config.yaml_files import read_yaml

IDS = "dataset.preprocessing.class_ids"


def check_inherited_ids(origins: Origins) -> Iterator[Problem]:
    """A file with `classes` and ids says what each inherited id is: silence would keep another recording's meaning."""
    ids: dict[Any, tuple[str, Path]] = {}  # what each stands for, and where
    unsaid: dict[Any, tuple[str, Path]] = {}
    for member in origins.members:
        path = origins.file_of(member)
        if path is None:
            continue
        section = _dataset_section(path, member.package or "")
        own = _mapping(_mapping(section.get("preprocessing")).get("class_ids"))
        if "classes" in section and own:
            unsaid = dict(ids)
        for raw_id, name in own.items():
            unsaid.pop(raw_id, None)
            ids.pop(raw_id, None)
            if name is not None:
                ids[raw_id] = (name, path)
    unsaid = {raw_id: found for raw_id, found in unsaid.items() if f"{IDS}.{raw_id}" not in origins.typed}
    if unsaid:
        files = ", ".join(dict.fromkeys(origins.search.told(path) for _, path in unsaid.values()))
        entries = ", ".join(f"{raw_id}: {name}" for raw_id, (name, _) in unsaid.items())
        nulls = ", ".join(f"{raw_id}: null" for raw_id in unsaid)
        message = f"the file that sets the classes does not say what becomes of ids inherited from {files}: {entries}"
        message += f"\nRepeat those that hold for this data set's recordings; null drops one: {nulls}"
        yield Problem(IDS, message, origins.of(IDS))


def check_class_names(dataset: DatasetConfig) -> Iterator[Problem]:
    """Groups and ids name classes. Several that do not are one mistake: the maps of an inherited data set."""
    classes = ", ".join(dataset.classes)
    groups = {
        group: [name for name in members if name in dataset.classes]
        for group, members in dataset.class_groups.items()
        if not set(members) <= set(dataset.classes)
    }
    stored = dataset.label_classes
    ids = {raw: name for raw, name in dataset.preprocessing.class_ids.items() if name not in stored}
    if len(groups) + len(ids) > 1:
        lines = ["groups and ids name other classes; a map is merged with that of the file it inherits from. Add"]
        if groups:
            kept = (f"{group}: [{', '.join(names)}]" if names else f"{group}: null" for group, names in groups.items())
            lines.append(f"  class_groups: {{{', '.join(kept)}}}")
        if ids:
            told = (f"{raw}: {'null' if raw in ids else name}" for raw, name in dataset.preprocessing.class_ids.items())
            lines += ["  preprocessing:", f"    class_ids: {{{', '.join(told)}}}"]
        yield Problem("dataset.classes", "\n".join(lines))
        return
    for group in groups:
        name = next(name for name in dataset.class_groups[group] if name not in dataset.classes)
        yield Problem(f"dataset.class_groups.{group}", f"{name!r} is no class of dataset.classes: {classes}")
    for raw_id, name in ids.items():
        key = f"dataset.preprocessing.class_ids.{raw_id}"
        told = "dataset.classes" if dataset.stored_classes is None else "dataset.stored_classes"
        yield Problem(key, f"{name!r} is no class of {told}: {', '.join(stored)}")


def _dataset_section(path: Path, package: str) -> dict[str, Any]:
    content = read_yaml(path)
    return content if package == "dataset" else _mapping(content.get("dataset")) if not package else {}


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
