"""Train a detector: `python train.py model=... dataset=... dataset.path=FOLDER ...`; `--help` shows the choices."""

from __future__ import annotations

from typing import Any

from config.command_line import hydra_command
from config.schema import TrainConfig


def train(config: TrainConfig, raw: dict[str, Any], argv: list[str]) -> int:
    """Imports torch only here, after the configuration has been checked: typing errors are told within a second."""
    from modules.run import train as run

    return run(config, raw, argv)


if __name__ == "__main__":
    hydra_command("train", train)()
