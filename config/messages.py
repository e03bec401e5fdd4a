"""What pydantic finds, said in the user's words: key, value, what is allowed, and the nearest valid name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from config import aliases, names
from config.errors import Problem
from config.origins import Origins

EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a section",
    "too_short": "a list that is not empty",
    "model_attributes_type": "a section",
}


def problems_of(
    error: ValidationError, section: str, raw: dict[str, Any], tree: names.KeyTree, origins: Origins
) -> list[Problem]:
    """One Problem per key of a top-level section; a union's alternatives are joined by "or"."""
    by_key: dict[str, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        location = (section, *details["loc"])
        complete = details["type"] == "missing"  # else the location also names alternatives of a union
        parts = map(str, location) if complete else _parts_in(location, raw)
        by_key.setdefault(".".join(parts), []).append(details)
    return [Problem(key, _message(key, found, tree), origins.of(key)) for key, found in by_key.items()]


def _parts_in(location: tuple[int | str, ...], node: Any) -> Iterator[str]:
    for part in location:
        if not isinstance(node, dict) or part not in node:
            return
        node = node[part]
        yield str(part)


def _message(key: str, found: list[ErrorDetails], tree: names.KeyTree) -> str:
    first = found[0]
    if first["type"] == "extra_forbidden":
        return names.unknown_key_message(key, tree)
    if first["type"] == "missing":
        return "is missing: no file and no override sets it"
    allowed = list(dict.fromkeys(_allowed(details) for details in found))
    value = first["input"]
    lines = f"is {_typed(value)}; allowed: {' or '.join(allowed)}"
    meant = aliases.value_meant(key, value)
    if meant is not None:
        return f"{lines}; did you mean {meant}?"
    for details in found:
        near = names.nearest(details["input"], _literals(details)) if isinstance(details["input"], str) else None
        if near:
            return f"{lines}; did you mean {near}?"
    if key == "model.head.name":
        lines += ". A head of another kind is a file of the project's: docs/extending.md"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 and "a whole number" in allowed:
        lines += f"; write {int(value)}"
    return lines


def _typed(value: Any) -> str:
    """A value as it stands in YAML."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _allowed(details: ErrorDetails) -> str:
    if details["type"] == "literal_error":
        text = details["ctx"]["expected"]
        text = text.lower() if text in ("True", "False") else text  # as in YAML
    else:
        text = EXPECTED.get(details["type"]) or details["msg"].removeprefix("Input should be ")
    if text.startswith(("greater", "less")):
        text = f"a number {text}"
    return f"a list, each of it {text}" if details["loc"] and isinstance(details["loc"][-1], int) else text


def _literals(details: ErrorDetails) -> list[str]:
    if details["type"] != "literal_error":
        return []
    return [word.strip("'") for word in details["ctx"]["expected"].replace(" or ", ", ").split(", ")]
