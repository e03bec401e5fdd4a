"""From overrides as typed on a command line to checked, typed objects."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from pydantic import TypeAdapter

from config.schema import DatasetConfig, TrainConfig, ValidationConfig

CONFIG_FOLDER = Path(__file__).resolve().parent


def load_train_config(overrides: list[str]) -> TrainConfig:
    """Compose config/train.yaml with overrides such as `dataset=toy` and check it."""
    return TypeAdapter(TrainConfig).validate_python(_compose("train", overrides))


def load_validation_config(overrides: list[str]) -> ValidationConfig:
    """Compose config/val.yaml with overrides such as `checkpoint=last.ckpt` and check it."""
    return TypeAdapter(ValidationConfig).validate_python(_compose("val", overrides))


def load_dataset_config(overrides: list[str]) -> DatasetConfig:
    """The data set alone: overrides such as `dataset=gen4`, `dataset.path=...`; the path may stay open."""
    raw = _compose("train", ["dataset.path=unset", *overrides])
    return DatasetConfig.model_validate(raw["dataset"])


def _compose(config_name: str, overrides: list[str]) -> dict:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        return OmegaConf.to_container(compose(config_name, overrides), resolve=True)
