"""A script's words: paths, `key=value`, and folders of YAML files; each value is read once, by its key."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from config.errors import UserError
from config.search_path import RECORDED, with_absolute_folders

Default = TypeVar("Default")
Choice = TypeVar("Choice", bound=str)


class Words:
    """What is asked for is taken out; `overrides` is the rest. Of a key that is given twice the last value counts.

    Raises UserError, with the key, for a value that is none.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        words = with_absolute_folders(arguments)
        self._folders = [word for word in words if word.startswith(RECORDED)]
        others = [word for word in words if word not in self._folders]
        self.paths = [Path(word).expanduser() for word in others if "=" not in word]
        self._asked: dict[str, None] = {}  # the script's own options, in its order
        self._values: dict[str, list[str]] = {}
        for word in others:
            key, is_pair, value = word.partition("=")
            if is_pair:
                self._values.setdefault(key, []).append(value)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def all(self, key: str) -> list[str]:
        self._asked[key] = None
        return self._values.pop(key, [])

    def text(self, key: str) -> str | None:
        return next(reversed(self.all(key)), None)

    def path(self, key: str, suffix: str = "") -> Path | None:
        """None without it, and where it has another suffix: then it stays."""
        self._asked[key] = None
        if not self._values.get(key, [""])[-1].lower().endswith(suffix):
            return None
        text = self.text(key)
        return None if text is None else Path(text).expanduser()

    def flag(self, key: str) -> bool:
        """False without it."""
        text = self.text(key)
        if text is not None and text.lower() not in ("true", "false"):
            raise UserError(f"{key}={text}: give true or false")
        return text is not None and text.lower() == "true"

    def number(self, key: str, default: Default, least: float, most: float) -> float | Default:
        text = self.text(key)
        return default if text is None else _number(key, text, least, most)

    def numbers(self, key: str, default: list[float], least: float, most: float) -> list[float]:
        """key=20, or key=[20,40]."""
        text = self.text(key)
        return default if text is None else [_number(key, part, least, most) for part in listed(text)]

    def whole_number(self, key: str, least: int, most: int) -> int | None:
        text = self.text(key)
        if text is not None and not (text.isdecimal() and least <= int(text) <= most):
            raise UserError(f"{key}={text}: give a whole number from {least} to {most}")
        return None if text is None else int(text)

    def choice(self, key: str, default: Default, choices: Sequence[Choice]) -> Choice | Default:
        text = self.text(key)
        return default if text is None else _choice(key, text, choices)

    def some(self, key: str, choices: Sequence[Choice]) -> list[Choice]:
        """key=one, or key=[one,other]; all without it."""
        text = self.text(key)
        return list(choices) if text is None else [_choice(key, part, choices) for part in listed(text)]

    @property
    def overrides(self) -> list[str]:
        """Of a config; the folders of YAML files alone are none. To be asked for last: the rest is mistyped."""
        for key, (value, *_) in self._values.items():
            if not _is_of_a_config(key):
                near = difflib.get_close_matches(key, self._asked, n=1, cutoff=0.5)
                told = f"did you mean {near[0]}?" if near else f"there are {', '.join(self._asked)}."
                raise UserError(f"{key}={value}: no such option; {told} --help tells more")
        pairs = [f"{key}={value}" for key, values in self._values.items() for value in values]
        return [*self._folders, *pairs] if pairs else []


def _is_of_a_config(key: str) -> bool:
    from config.schema import TrainConfig, ValidationConfig

    section = re.split(r"[./@]", key.lstrip("+~"))[0]
    return section in TrainConfig.model_fields or section in ValidationConfig.model_fields


def listed(value: str) -> list[str]:
    """The parts of [one,other]; else the value itself."""
    return [part.strip() for part in value[1:-1].split(",")] if value[:1] == "[" and value[-1:] == "]" else [value]


def _number(key: str, text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise UserError(f"{key}={text}: give a number from {least:g} to {most:g}")
    return value


def _choice(key: str, text: str, choices: Sequence[Choice]) -> Choice:
    for choice in choices:
        if text == choice:
            return choice
    raise UserError(f"{key}={text}: give one of {', '.join(choices)}")


def help_where_asked(text: str | None) -> None:
    """Print it and end: with exit code 2 where nothing was typed at all."""
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(text)
        sys.exit(0 if sys.argv[1:] else 2)
