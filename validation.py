"""Validate or test a checkpoint: `python validation.py model=... dataset=... dataset.path=FOLDER checkpoint=FILE`.

Where a checkpoint lies in its run's folder, `checkpoint=FILE` alone validates it as the run was trained.
"""

from __future__ import annotations

import sys

from config.command_line import errors_without_traceback, hydra_command
from config.interpreter import quick_exit, quick_imports
from config.schema import ValidationConfig
from config.search_path import with_absolute_folders
from modules.run.repeating import with_command_of_checkpoint
from modules.run.voice import in_one_voice


def validate(config: ValidationConfig, argv: list[str]) -> int:
    """Imports torch only here, after the configuration has been checked: typing errors are told within a second."""
    with quick_imports():
        from modules.run.entry import validate as run

    return run(config, argv)


if __name__ == "__main__":
    with quick_exit():
        with errors_without_traceback(speak=in_one_voice):
            sys.argv[1:] = with_command_of_checkpoint(with_absolute_folders(sys.argv[1:]))
        hydra_command("val", validate, speak=in_one_voice)()
