"""Secrets of the environment that would come into config.yaml, checkpoints and WandB. None of our keys is one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from config.errors import Problem
from config.names import join

SECRET = re.compile(r"(^|[_\W])(api_?key|key|token|secret|password|passwd|pass|credentials?)([_\W]|$)", re.IGNORECASE)
FROM_ENVIRONMENT = re.compile(r"\$\{\s*(?:oc\.)?env\s*:\s*['\"]?([^,}\s'\"]+)")
SHORTEST = 8  # characters of a value that is looked for: shorter ones stand in other words by chance


def is_secret(variable: str) -> bool:
    """True if a variable's name says that its value is one."""
    return SECRET.search(variable) is not None


def check_secrets(unresolved: Any, environment: Mapping[str, str] = os.environ, key: str = "") -> Iterator[Problem]:
    """Values that take a secret from the environment, as `${oc.env:WANDB_API_KEY}` or through the shell."""
    entries = unresolved.items() if isinstance(unresolved, dict) else enumerate(unresolved)
    for name, value in entries:
        inner = join(key, str(name))
        if isinstance(value, dict | list):
            yield from check_secrets(value, environment, inner)
        elif isinstance(value, str) and (variable := _secret_in(value, environment)):
            message = f"holds the secret {variable} of the environment, and a run shows its keys in files and WandB"
            yield Problem(inner, f"{message}. Take it out: what needs {variable} reads it from the environment itself")


def _secret_in(value: str, environment: Mapping[str, str]) -> str | None:
    for variable in FROM_ENVIRONMENT.findall(value):
        if is_secret(variable):
            return variable
    held = (name for name, text in environment.items() if len(text) >= SHORTEST and text in value and text[0] != "/")
    return next((name for name in held if is_secret(name)), None)
