"""Train a detector: `python train.py model=... dataset=... dataset.path=FOLDER ...`; `--help` shows the choices."""

from __future__ import annotations

import sys

from config.command_line import errors_without_traceback, hydra_command
from config.interpreter import quick_exit, quick_imports
from config.schema import TrainConfig
from config.search_path import with_absolute_folders
from modules.run.members import TRAINING
from modules.run.repeating import with_recorded_command
from modules.run.voice import in_one_voice


def train(config: TrainConfig, argv: list[str]) -> int:
    """Imports torch only here, after the configuration has been checked: typing errors are told within a second."""
    with quick_imports():
        from modules.run.entry import train as run

    return run(config, argv)


if __name__ == "__main__":
    with quick_exit():
        with errors_without_traceback(speak=in_one_voice):
            sys.argv[1:] = with_recorded_command(with_absolute_folders(sys.argv[1:]))
        hydra_command("train", train, TRAINING, in_one_voice)()
