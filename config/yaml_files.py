"""YAML files of other people: what is no configuration is refused before a reader expands it.

A few lines of anchors within anchors stand for billions of values, an anchor may hold itself, and brackets may be
nested beyond what Python's stack holds: all of it shows in the stream of events, which is read without expanding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult, ConfigSource

from config.errors import UserError

LARGEST_BYTES = 2**20
_MOST_VALUES = 50_000
_DEEPEST = 50


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a file, {} where it is empty. Raises UserError, in one line, for whatever is none."""
    text = _checked_text(path)
    with _told(path):
        content = yaml.load(text, Loader=_LOADER)
        if content is None:
            return {}
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not keys with values")
        return content


@contextlib.contextmanager
def checked_files() -> Generator[None]:
    """Whatever file Hydra, which has been initialized, reads in here is read by `read_yaml` first."""
    reader: Any = SourcesRegistry.instance().resolve("file")  # Hydra imports its plug-ins anew
    load_config = reader.load_config

    def checked(source: ConfigSource, config_path: str) -> ConfigResult:
        path = Path(source.path, source._normalize_file_name(config_path))
        if path.is_file():
            read_yaml(path)
        return load_config(source, config_path)

    reader.load_config = checked
    try:
        yield
    finally:
        reader.load_config = load_config


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _checked_text(path: Path) -> str:
    with _told(path):
        if path.exists() and not path.is_file():
            raise ValueError("no file but a pipe or a device")  # which would be waited for, or never ends
        if (size := path.stat().st_size) > LARGEST_BYTES:
            raise ValueError(f"{size:,} bytes are no configuration")
        text = path.read_text(encoding="utf-8")
        _require_few_values(text)
        return text


def _require_few_values(text: str) -> None:
    """Count values as they would be expanded."""
    values = 0
    finished: dict[str, int] = {}  # values below an anchor
    opened: list[tuple[str | None, int]] = []  # anchors of what surrounds, and the count where each began
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in finished:
                raise ValueError(f"the anchor &{event.anchor} holds itself, or is not there")
            values += finished[event.anchor]
        elif isinstance(event, yaml.NodeEvent):
            values += 1
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append((event.anchor, values))
                if event.anchor is not None:
                    finished.pop(event.anchor, None)
            elif event.anchor is not None:
                finished[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                finished[anchor] = values - before + 1
        if values > _MOST_VALUES:
            raise ValueError(f"its anchors stand for more than {_MOST_VALUES:,} values")
        if len(opened) > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")


@contextlib.contextmanager
def _told(path: Path) -> Generator[None]:
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise UserError(f"{path} is not valid YAML{where}: {error.problem or error.context}") from error
    except Exception as error:  # constructors of dates and numbers raise their own
        told = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is not valid YAML: {told}") from error
