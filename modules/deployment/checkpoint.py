"""A trained network from a checkpoint: with the config that it tells, or with the command's."""

from __future__ import annotations

from pathlib import Path

import torch

from config.loading import load_validation_config
from config.schema import Config
from models.detector import Detector
from models.weights.pretrained import Wanted, load_into
from modules.run.config_in_file import config_in_file


def config_of_checkpoint(path: Path, overrides: list[str]) -> Config:
    """The config in a checkpoint of ours; the overrides' where there are any, as another project's file needs."""
    if overrides:
        folder = [] if any("dataset.path=" in word for word in overrides) else ["dataset.path=."]
        return load_validation_config([*overrides, *folder, f"checkpoint={path}"])
    return config_in_file(path)


def load_detector(config: Config, checkpoint: Path) -> Detector:
    """On a GPU where there is one; prints what its user should know about the weights."""
    detector = Detector(config.model, config.dataset.num_classes, config.partition_size)
    for line in load_into(detector, config.model, checkpoint, Wanted.of(config)):
        print(line)
    return detector.to("cuda" if torch.cuda.is_available() else "cpu").eval()
