"""Errors that are the user's to mend: entry points print them without a traceback and exit with code 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class UserError(Exception):
    """A mistake in a command, a config or a file. The message names the key or path and the remedy."""


class SharedError(UserError):
    """A UserError that all processes of a run raise at the same step."""


class Told(SystemExit):
    """The end of a program after its last message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code)
        self.message = message


@dataclass(frozen=True)
class Problem:
    """One mistake in a configuration: what is wrong, what is allowed, and where it was set, if anywhere."""

    key: str
    message: str
    origin: str = ""

    def __str__(self) -> str:
        lines = [self.key, *self.message.splitlines()] if self.key else self.message.splitlines()
        if self.origin:
            lines.append(f"set {self.origin}")
        return "\n      ".join(lines)


class ConfigError(UserError):
    """All mistakes of a configuration at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(problems)} mistakes" if len(problems) > 1 else "1 mistake"
        super().__init__("\n\n".join([f"{count} in the configuration:", *(f"  * {problem}" for problem in problems)]))
