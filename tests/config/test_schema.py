"""Every YAML file composes into the schema, and every key of the schema is read by some code."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import ValidationError

from config.loading import load_train_config, load_validation_config
from config.names import key_tree
from config.retired import DERIVED
from config.schema import TrainConfig, ValidationConfig
from config.search_path import CONFIG_FOLDER, SearchPath
from tests.config import test_experiments

PROJECT = CONFIG_FOLDER.parent
DATASETS = sorted(set(SearchPath().choices("dataset")) - {"base"})
MODELS = sorted(set(SearchPath().choices("model")) - {"rnndet"})
EXPERIMENTS = sorted(SearchPath().choices("experiment"))
ON_ETRAM = {f"gen4/{name}" for name in test_experiments.EXPERIMENTS}  # composed there


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_dataset_composes(dataset: str) -> None:
    config = load_train_config([f"dataset={dataset}", "model=maxvit_yolox/default", "dataset.path=x"])
    assert config.dataset.name == dataset


@pytest.mark.parametrize("model", MODELS)
def test_every_model_composes(model: str) -> None:
    config = load_validation_config([f"model={model}", "dataset=gen4", "dataset.path=x", "checkpoint=x.ckpt"])
    assert config.model.name == "rnndet"
    assert len(config.model.fpn.in_stages) == (4 if "4scale" in model else 3)
    assert config.model.loss.size_weight.kind == ("exponential" if "sizeaware" in model else None)


@pytest.mark.parametrize("experiment", sorted(set(EXPERIMENTS) - ON_ETRAM))
def test_every_experiment_composes_on_the_skeleton(experiment: str) -> None:
    group, name = experiment.split("/")
    dataset = group if group in DATASETS else "gen4"
    config = load_train_config([f"dataset={dataset}", "dataset.path=x", f"+experiment/{group}={name}"])
    assert config.model.head.num_classes in (None, config.dataset.num_classes)


def test_every_yaml_file_is_composed_by_these_tests() -> None:
    tested = {f"dataset/{d}" for d in [*DATASETS, "base"]} | {f"model/{m}" for m in [*MODELS, "rnndet"]}
    tested |= {f"experiment/{e}" for e in EXPERIMENTS} | {"train", "val", "general"}
    on_disk = {str(path.relative_to(CONFIG_FOLDER).with_suffix("")) for path in CONFIG_FOLDER.rglob("*.yaml")}
    assert on_disk == tested


def test_every_key_is_read_by_some_code() -> None:
    """A key that nothing reads promises what does not happen.

    Keys with one allowed value say what is built; derived keys are compared with what the resolution makes them.
    """
    read = {name for path in _sources() for name in _attributes(path)}
    read |= {key.rpartition(".")[2] for key in DERIVED}
    leaves = key_tree(TrainConfig).leaves | key_tree(ValidationConfig).leaves
    dead = [key for key, kind in leaves.items() if not _is_constant(kind) and key.rpartition(".")[2] not in read]
    assert dead == []


def test_half_resolution_is_derived_and_not_written_back() -> None:
    config = load_train_config(["dataset=gen4", "dataset.path=x", "model=maxvit_yolox/default"])
    assert config.dataset.loaded_hw == (360, 640)
    assert config.input_hw == (384, 640)
    assert config.partition_size == (6, 10)
    assert config.dataset.eval_box_filter.min_diagonal == 30
    with pytest.raises(ValidationError, match="frozen"):
        config.dataset.sequence_length = 7


def test_frames_of_a_size_between() -> None:
    config = load_train_config(
        ["dataset=gen4", "dataset.path=x", "model=maxvit_yolox/default", "dataset.frame_hw=[540,960]"]
    )
    assert config.dataset.loaded_hw == (540, 960)
    assert config.dataset.stride is None
    assert config.dataset.eval_box_filter.min_diagonal == 45
    assert (config.input_hw, config.partition_size) == ((576, 960), (9, 15))
    sensor = config.dataset.model_copy(update={"frame_hw": (720, 1280)})
    assert (sensor.stride, sensor.eval_box_filter.min_diagonal) == (1, 60)


@pytest.mark.parametrize(
    ("split", "input_hw", "partition_size"),
    [(2, (384, 672), (8, 14)), (3, (360, 648), (5, 9)), (4, (384, 672), (4, 7))],
)
def test_a_stem_of_stride_3_sizes_input_and_windows_in_units_of_24(
    split: int, input_hw: tuple[int, int], partition_size: tuple[int, int]
) -> None:
    keys = ["model.backbone.stem.patch_size=3", f"model.backbone.partition_split_32={split}"]
    config = load_train_config(["dataset=gen4", "dataset.path=x", "model=maxvit_yolox/default", *keys])
    assert (config.input_hw, config.partition_size) == (input_hw, partition_size)
    assert config.model.backbone.strides == (3, 6, 12, 24)


def test_full_resolution_keeps_sensor_pixels() -> None:
    config = load_train_config(["dataset=gen1", "dataset.path=x", "+experiment/gen1=tiny"])
    assert config.dataset.loaded_hw == (240, 304)
    assert config.input_hw == (256, 320)
    assert config.partition_size == (8, 10)
    assert config.dataset.eval_box_filter.min_diagonal == 30


def _sources() -> list[Path]:
    folders = ("data", "models", "modules", "callbacks", "scripts")
    schema = sorted(CONFIG_FOLDER.glob("schema/*.py"))  # derived properties
    return [
        *schema,
        PROJECT / "train.py",
        PROJECT / "validation.py",
        *(p for f in folders for p in PROJECT.glob(f"{f}/**/*.py")),
    ]


def _attributes(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def _is_constant(kind: Any) -> bool:
    members = get_args(kind)
    if get_origin(kind) is Literal:
        return len(members) == 1
    return bool(members) and all(_is_constant(member) for member in members)
