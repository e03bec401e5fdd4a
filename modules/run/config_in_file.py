"""The config that a file with weights was trained with, where it tells one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from config.errors import UserError
from config.loading import load_validation_config
from config.schema import Config, DatasetConfig, EvaluationConfig, ModelConfig
from models.parts import own_parts
from models.weights.file import read_file

TOLD: dict[str, type[BaseModel]] = {"dataset": DatasetConfig, "model": ModelConfig, "evaluation": EvaluationConfig}
STAND_IN = ("dataset=gen1", "model=maxvit_yolox/default", "dataset.path=.")


def config_in_file(path: Path, trust: bool = False) -> Config:
    """Data set, model and evaluation as a checkpoint of ours or converted weights tell them; the rest by default.

    Raises:
        UserError: as `read_file`; the file tells no config, or one that this version cannot use or that names code.
    """
    recorded: Any = read_file(path, trust=trust).get("config")
    if not isinstance(recorded, dict):
        raise UserError(f"{path} tells no config: add model=NAME dataset=NAME, with which it was trained")
    try:
        told = {key: section.model_validate(recorded.get(key)) for key, section in TOLD.items()}
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: its config is none of this version ({place}: {first['msg']}): add model=NAME dataset=NAME"
        ) from error
    # the other sections are of the machine and the training, and gain keys from version to version
    config = load_validation_config([*STAND_IN, f"checkpoint={path}"]).model_copy(update=told)
    for key, part in own_parts(config.model).items():
        remedy = "Type what chooses it: --config-dir FOLDER model=NAME dataset=NAME"
        raise UserError(f"{path}: names code, {key}={part}, and a checkpoint's word is not enough to run it. {remedy}")
    return config
