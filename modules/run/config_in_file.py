"""The config that a file with weights was trained with, where it tells one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from config.errors import UserError
from config.schema import Config
from models.parts import own_parts
from models.weights.file import read_file


def config_in_file(path: Path, trust: bool = False) -> Config:
    """What training and validation share, of the config in a checkpoint of ours or in converted weights.

    Raises:
        UserError: as `read_file`; the file tells no config, or one that this version cannot use or that names code.
    """
    recorded: Any = read_file(path, trust=trust).get("config")
    if not isinstance(recorded, dict):
        raise UserError(f"{path} tells no config: add model=NAME dataset=NAME, with which it was trained")
    try:
        config = Config.model_validate({key: recorded[key] for key in Config.model_fields if key in recorded})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: its config is none of this version ({place}: {first['msg']}): add model=NAME dataset=NAME"
        ) from error
    for key, part in own_parts(config.model).items():
        remedy = "Type what chooses it: --config-dir FOLDER model=NAME dataset=NAME"
        raise UserError(f"{path}: names code, {key}={part}, and a checkpoint's word is not enough to run it. {remedy}")
    return config
