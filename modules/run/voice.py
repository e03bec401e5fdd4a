"""A mistake of a command that several processes were given, told once; without torch until there is one."""

from __future__ import annotations

from typing import NoReturn

from config.errors import UserError
from config.interpreter import quick_imports


def in_one_voice(error: UserError) -> NoReturn:
    """End this process and those that were started with it."""
    with quick_imports():
        from modules.run.meeting import speak

    speak(error)
