"""Valid names: keys of the schema, groups and choices on disk, and the one that a mistyped name is nearest to."""

from __future__ import annotations

import difflib
import functools
import types
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

CONFIG_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class KeyTree:
    """Full keys of a schema: sections with the names in them (`""` is the root), and leaves with their types."""

    sections: dict[str, tuple[str, ...]] = field(default_factory=dict)
    leaves: dict[str, Any] = field(default_factory=dict)

    def knows(self, key: str) -> bool:
        """True for a section, a leaf, or an entry of a leaf that is a free mapping."""
        return key in self.sections or key in self.leaves or self._mapping_above(key) is not None

    def is_text(self, key: str) -> bool:
        """True where any text is a value: paths, names, ids."""
        return bool({str, Path} & set(_members(self.leaves.get(key))))

    def is_path(self, key: str) -> bool:
        return Path in _members(self.leaves.get(key)) or key == "resume"

    def _mapping_above(self, key: str) -> str | None:
        parents = (key[:i] for i, letter in enumerate(key) if letter == ".")
        return next((p for p in parents if get_origin(self.leaves.get(p)) is dict), None)


@functools.cache
def key_tree(schema: type[BaseModel]) -> KeyTree:
    tree = KeyTree()
    _add_section(tree, "", schema)
    return tree


def unknown_key_message(key: str, tree: KeyTree) -> str:
    """What to write instead of a key that does not exist."""
    reached, complete = _walk(key, tree)
    suggestion = reached if complete else _same_name_elsewhere(key, tree)
    lines = ["there is no such key" + (f"; did you mean {suggestion}?" if suggestion else "")]
    section = reached if reached in tree.sections and not complete else reached.rpartition(".")[0]
    lines.append(f"allowed {'in ' + section if section else 'at the top level'}: {', '.join(tree.sections[section])}")
    return "\n".join(lines)


def _walk(key: str, tree: KeyTree) -> tuple[str, bool]:
    """Follow a key through the sections by nearest names: the key reached, and whether all parts were found."""
    reached = ""
    for part in key.split("."):
        known = tree.sections.get(reached, ())
        best = part if part in known else nearest(part, known)
        if best is None:
            return reached, False
        reached = join(reached, best)
    return reached, True


def _same_name_elsewhere(key: str, tree: KeyTree) -> str | None:
    last = key.rpartition(".")[2]
    by_name = [(known.rpartition(".")[2], known) for known in tree.leaves]
    same = [known for name, known in by_name if name == last]
    longer = [known for name, known in by_name if len(last) > 3 and name.startswith(last)]
    return next((found[0] for found in (same, longer) if len(found) == 1), None)


def nearest(name: str, choices: Iterable[str]) -> str | None:
    matches = difflib.get_close_matches(name.lower(), list(choices), n=1, cutoff=0.6)
    return matches[0] if matches else None


def join(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def groups(folder: Path) -> list[str]:
    """Config groups on disk, such as `dataset` and `experiment/gen4`."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir() and any(path.rglob("*.yaml"))
    )


def choices(group: str, folder: Path) -> dict[str, Path]:
    """Choices of a group on disk (`maxvit_yolox/plain_lstm` for `model`) and their files."""
    files = sorted((folder / group).rglob("*.yaml"))
    return {str(path.relative_to(folder / group).with_suffix("")): path for path in files}


def listing(group: str, folder: Path, complete_only: bool = False) -> str:
    """The choices of a group, one a line, as they are typed, each with the first comment of its file."""
    found = {name: path.read_text(encoding="utf-8") for name, path in choices(group, folder).items()}
    if group == "dataset" or complete_only:
        found = {name: text for name, text in found.items() if name != "base" and ": ???" not in text}
    width = max((len(name) for name in found), default=0)
    sign = "+" if group.startswith("experiment") else ""
    return "\n".join(
        f"    {sign}{group}={name:<{width}}  {_first_comment(text)}".rstrip() for name, text in found.items()
    )


def _first_comment(text: str) -> str:
    lines = (line for line in text.splitlines() if line.startswith("#") and not line.startswith("# @package"))
    return next(lines, "").lstrip("# ")


def _add_section(tree: KeyTree, key: str, schema: type[BaseModel]) -> None:
    tree.sections[key] = tuple(schema.model_fields)
    for name, info in schema.model_fields.items():
        section = _section(info.annotation)
        if section is None:
            tree.leaves[join(key, name)] = info.annotation
        else:
            _add_section(tree, join(key, name), section)


def _section(annotation: Any) -> type[BaseModel] | None:
    members = (m for m in _members(annotation) if isinstance(m, type) and issubclass(m, BaseModel))
    return next(members, None)


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types that a union consists of, without their constraints."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in _members(part))
    return (annotation,)
