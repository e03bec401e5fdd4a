"""Validate or test a checkpoint: `python validation.py model=... dataset=... dataset.path=FOLDER checkpoint=FILE`."""

from __future__ import annotations

from config.command_line import hydra_command
from config.interpreter import quick_exit, quick_imports
from config.schema import ValidationConfig
from modules.run.voice import in_one_voice


def validate(config: ValidationConfig, argv: list[str]) -> int:
    """Imports torch only here, after the configuration has been checked: typing errors are told within a second."""
    with quick_imports():
        from modules.run.entry import validate as run

    return run(config, argv)


if __name__ == "__main__":
    with quick_exit():
        hydra_command("val", validate, speak=in_one_voice)()
