"""Valid names: the keys of the schema, and the name that a mistyped one is nearest to."""

from __future__ import annotations

import difflib
import functools
import re
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from config import aliases

_IN_STAGE = re.compile(r"training\.stages\.\d+\.(?=.)")
MISTYPED = 0.75  # likeness of a key to the one that was meant; keys that merely share a word have less


@dataclass(frozen=True)
class KeyTree:
    """Full keys of a schema: sections with the names in them (`""` is the root), and leaves with their types.

    A section has the keys of all members of a union; a key whose value may be a section or a single value is both.
    """

    sections: dict[str, tuple[str, ...]] = field(default_factory=dict)
    leaves: dict[str, Any] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)  # sections that may be null

    def knows(self, key: str) -> bool:
        """True for a section, a leaf, or an entry of a leaf that is a free mapping."""
        return key in self.sections or key in self.leaves or self._mapping_above(key) is not None

    def is_text(self, key: str) -> bool:
        """True where any text is a value: paths, names, ids."""
        return bool({str, Path} & set(_members(self.leaves.get(key))))

    def is_path(self, key: str) -> bool:
        return Path in _members(self.leaves.get(key)) or key == "resume"

    def mappings_without_null(self) -> list[str]:
        """Keys of free mappings whose entries may not be null."""
        maps = {
            key: member for key, kind in self.leaves.items() for member in _members(kind) if get_origin(member) is dict
        }
        return [key for key, kind in maps.items() if not {Any, type(None)} & set(_members(get_args(kind)[1]))]

    def _mapping_above(self, key: str) -> str | None:
        parents = (key[:i] for i, letter in enumerate(key) if letter == ".")
        return next((p for p in parents if any(_is_mapping(m) for m in _members(self.leaves.get(p)))), None)


def outside_stage(key: str) -> str:
    """The key that a stage of the training lays its own value over: `training.stages.0.batch_size.train` -> ..."""
    return _IN_STAGE.sub("", key, count=1) if key.startswith("training.stages.") else key


def _is_mapping(annotation: Any) -> bool:
    return annotation is dict or get_origin(annotation) is dict


@functools.cache
def key_tree(schema: type[BaseModel]) -> KeyTree:
    tree = KeyTree()
    _add_section(tree, "", [schema])
    return tree


def unknown_key_message(key: str, tree: KeyTree) -> str:
    """What to write instead of a key that does not exist."""
    reached, complete = _walk(key, tree)
    meant = aliases.advice_on(key, tree.leaves)
    if meant is None:
        suggestion = _same_name_elsewhere(key, tree) or (reached if complete else None)
        meant = f"did you mean {suggestion}?" if suggestion else aliases.advice_on_likeness(key, tree.leaves)
    lines = ["there is no such key" + (f"; {meant}" if meant else "")]
    section = reached if reached in tree.sections and not complete else reached.rpartition(".")[0]
    lines.append(f"allowed {'in ' + section if section else 'at the top level'}: {', '.join(tree.sections[section])}")
    if meant is None and "." not in key and "notes" in tree.leaves:
        lines.append(f"What is meant as a note goes into notes: {{{key}: ...}}")
    return "\n".join(lines)


def _walk(key: str, tree: KeyTree) -> tuple[str, bool]:
    """Follow a key through the sections by nearest names: the key reached, and whether all parts were found."""
    reached = ""
    for part in key.split("."):
        known = tree.sections.get(reached, ())
        best = part if part in known else nearest(part, known, MISTYPED)
        if best is None:
            return reached, False
        reached = join(reached, best)
    return reached, True


def _same_name_elsewhere(key: str, tree: KeyTree) -> str | None:
    last = key.rpartition(".")[2]
    by_name = [(known.rpartition(".")[2], known) for known in (*tree.leaves, *tree.sections)]
    same = [known for name, known in by_name if name == last]
    longer = [known for name, known in by_name if len(last) > 3 and name.startswith(last)]
    return next((found[0] for found in (same, longer) if len(found) == 1), None)


def nearest(name: str, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    matches = difflib.get_close_matches(name.lower(), list(choices), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def join(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _add_section(tree: KeyTree, key: str, schemas: Sequence[type[BaseModel]]) -> None:
    """A section with the keys of all schemas that it may have."""
    annotations: dict[str, list[Any]] = {}
    for schema in schemas:
        for name, info in schema.model_fields.items():
            annotations.setdefault(name, []).append(info.annotation)
    tree.sections[key] = tuple(annotations)
    for name, alternatives in annotations.items():
        members = [member for annotation in alternatives for member in _members(annotation)]
        inner = [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]
        values = [member for member in members if member not in inner]
        if inner:
            _add_section(tree, join(key, name), inner)
        if inner and type(None) in values:
            tree.optional.add(join(key, name))
            values = [value for value in values if value is not type(None)]
        if values:
            tree.leaves[join(key, name)] = Union[tuple(values)]  # noqa: UP007  # type: ignore[invalid-annotation]  # made at run time


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types that a union consists of, without their constraints."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in _members(part))
    return (annotation,)
