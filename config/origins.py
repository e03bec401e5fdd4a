"""Where a key of a composed configuration was set: on the command line, or in which line of which YAML file."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra.core.default_element import ResultDefault

from config.composition import member_files
from config.search_path import SearchPath
from config.user_files import KIND, SPELLINGS, SWITCH


@dataclass(frozen=True)
class Origins:
    """`typed` maps keys to command-line text; `choices` are the groups that were chosen."""

    typed: Mapping[str, str]
    choices: Sequence[str]
    config_name: str
    search: SearchPath

    @functools.cached_property
    def members(self) -> list[ResultDefault]:
        """The composed files, those that win last."""
        return member_files(self.config_name, self.choices, self.search)

    def of(self, key: str) -> str:
        """Text such as `in config/general.yaml:7`; empty if nobody sets the key."""
        above = self._typed_above(key)
        if above:
            return f"on the command line: {self.typed[max(above, key=len)]}"
        found = self._place(key)
        return f"in {self.search.told(found[1])}:{found[2]}" if found else ""

    def rank(self, key: str) -> int:
        """Later files, and then the command line, have higher ones; -1 where nobody sets the key."""
        if self._typed_above(key):
            return len(self.members)
        found = self._place(key)
        return found[0] if found else -1

    def _typed_above(self, key: str) -> list[str]:
        return [typed for typed in self.typed if key == typed or key.startswith(f"{typed}.")]

    def _place(self, key: str) -> tuple[int, Path, int] | None:
        """Which member sets a key, in which line of which file."""
        for rank, member in reversed(list(enumerate(self.members))):
            path = self.file_of(member)
            if path is None:
                continue
            names = (key, SPELLINGS.get(key, SWITCH if key == KIND else key))
            packages = (member.package or "", "")  # a file of RVT's sets model with the section's name
            lines = (self._line_of(path, package, name) for name in names for package in packages)
            if line := next((line for line in lines if line is not None), None):
                return rank, path, line
        return None

    def file_of(self, member: ResultDefault) -> Path | None:
        """The file that is read for a member."""
        return next(iter(self.search.files(member.config_path or "")), None)

    @functools.cached_property
    def _nodes(self) -> dict[Path, tuple[str, yaml.Node | None]]:
        return {}

    def _line_of(self, path: Path, package: str, key: str) -> int | None:
        """Of a file, whose keys are those of the package."""
        inside = key if not package else key.removeprefix(f"{package}.") if key.startswith(f"{package}.") else None
        if path not in self._nodes:
            text = path.read_text(encoding="utf-8")
            self._nodes[path] = text, yaml.compose(text)
        text, node = self._nodes[path]
        return None if inside is None or inside.rpartition(".")[2] not in text else _line_in(node, inside)


def _line_in(node: yaml.Node | None, key: str) -> int | None:
    line = None
    for part in key.split("."):
        if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
            continue
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next(((name, value) for name, value in pairs if name.value.lstrip("+") == part), None)
        if found is None:
            return None
        line, node = found[0].start_mark.line + 1, found[1]
    return line
