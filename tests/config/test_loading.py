"""Composed, checked configurations: documented commands, RVT's commands, and every mistake at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from pydantic import ValidationError

from config.errors import ConfigError
from config.loading import load, load_dataset_config, load_train_config, load_validation_config
from config.schema.root import WandbConfig
from config.search_path import CONFIG_FOLDER

TRAIN = (
    "model=maxvit_yolox/plain_lstm",
    "dataset=gen4",
    "dataset.path=DATA",
    "+experiment/gen4=plain_lstm_640x360_baseline.yaml",
    "hardware.gpus=0",
    "batch_size.train=6",
    "batch_size.eval=2",
    "hardware.num_workers.train=4",
    "hardware.num_workers.eval=3",
    "training.max_steps=100000",
    "dataset.train.sampling=stream",
    "wandb.project_name=etram_enhanced",
    "wandb.group_name=plain_lstm_640x360_baseline",
)
VALIDATE = (
    "dataset=gen4",
    "dataset.path=DATA",
    "checkpoint=SOMEWHERE/kkm8zcsi/checkpoints/last_epoch=001-step=100000.ckpt",
    "use_test_set=false",
    "hardware.gpus=0",
    "model=maxvit_yolox/plain_lstm",
    "batch_size.eval=8",
    "+batch_size.train=6",
    "hardware.num_workers.eval=1",
    "+hardware.num_workers.train=1",
    "model.postprocess.confidence_threshold=0.001",
)


def problems(overrides: Sequence[str], config_name: str = "train", folder: Path = CONFIG_FOLDER) -> dict[str, str]:
    """What is said about each key."""
    with pytest.raises(ConfigError) as caught:
        load(config_name, overrides, folder=folder)
    return {problem.key: str(problem) for problem in caught.value.problems}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the YAML files, to be spoilt."""
    return Path(
        shutil.copytree(CONFIG_FOLDER, tmp_path / "config", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    )


def test_documented_training_command() -> None:
    config = load_train_config(TRAIN)
    assert config.dataset.path == Path("DATA")
    assert config.dataset.train.sampling == "stream"
    assert config.model.head.num_classes == 8
    assert (config.batch_size.train, config.batch_size.eval) == (6, 2)
    assert config.training.learning_rate == 0.0001732  # 2e-4 * sqrt(6 / 8)
    assert config.training.lr_scheduler.total_steps == 100000
    assert config.hardware.gpus == 0


def test_documented_validation_command() -> None:
    config = load_validation_config(VALIDATE)
    assert config.checkpoint == Path("SOMEWHERE/kkm8zcsi/checkpoints/last_epoch=001-step=100000.ckpt")
    assert config.batch_size.train == 6
    assert config.model.postprocess.confidence_threshold == 0.001
    without_plus = [override for override in VALIDATE if not override.startswith("+")]
    assert load_validation_config(without_plus).batch_size.eval == 8


def test_skeleton_without_experiment_names_what_is_missing_and_the_choices() -> None:
    said = problems(["model=rnndet", "dataset=gen4", "dataset.path=DATA", "+model.head.num_classes=8"])
    assert list(said) == ["model"]
    for part in ("backbone", "fpn", "head", "model=maxvit_yolox/plain_lstm", "+experiment/gen4=plain_lstm_640x360"):
        assert part in said["model"]


@pytest.mark.parametrize("extra", [["+model.head.num_classes=8"], []])
def test_skeleton_with_experiment_is_the_plain_lstm(extra: list[str]) -> None:
    overrides = ["model=rnndet", "dataset=gen4", "dataset.path=DATA", *extra]
    config = load_train_config([*overrides, "+experiment/gen4=plain_lstm_640x360_baseline.yaml"])
    assert config.model == load_train_config(TRAIN).model


@pytest.mark.parametrize("size", ["tiny.yaml", "small.yaml", "base.yaml"])
@pytest.mark.parametrize(("dataset", "group"), [("gen1", "gen1"), ("gen4", "gen4"), ("gen4_1mpx", "gen4")])
def test_commands_of_rvt(size: str, dataset: str, group: str) -> None:
    overrides = ["model=rnndet", f"dataset={dataset}", "dataset.path=DATA", f"+experiment/{group}={size}"]
    training = load_train_config([*overrides, "hardware.gpus=[0,1]", "dataset.train.sampling=random"])
    assert training.hardware.gpus == (0, 1)
    assert training.model.head.num_classes is None
    assert load_validation_config([*overrides, "checkpoint=x.ckpt", "use_test_set=1"]).use_test_set is True


def test_explicit_names_with_equals_signs() -> None:
    name = "stacked_histogram_dt=50_nbins=10"
    assert load_train_config([*TRAIN, f"dataset.ev_repr_name={name}"]).dataset.ev_repr_name == name


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    config = load_train_config([*TRAIN, "dataset.path=~/my data", "run_root=~/runs", "resume=~/a=1.ckpt"])
    assert config.dataset.path == Path("/home/ada/my data")
    assert config.run_root == Path("/home/ada/runs")
    assert config.resume == "/home/ada/a=1.ckpt"


def test_a_run_id_of_digits_stays_text() -> None:
    assert load_train_config([*TRAIN, "resume=00123456"]).resume == "00123456"
    assert load_train_config([*TRAIN, "resume=1234e567"]).resume == "1234e567"


def test_dataset_alone() -> None:
    assert load_dataset_config(["dataset=gen1"]).classes == ("car", "pedestrian")
    half = load_dataset_config(["dataset=gen4", "dataset.path=a b", "dataset.representation.bins=5"])
    assert (half.path, half.channels) == (Path("a b"), 10)
    with pytest.raises(ConfigError, match=r"dataset\.classes"):
        load_dataset_config(["dataset=gen4", "dataset.classes=[car,car]"])


def test_all_mistakes_at_once_each_with_its_place() -> None:
    said = problems(
        [
            *TRAIN,
            "training.learning_rate=abc",
            "batch_size.train=true",
            "batch_size.eval=0",
            "+trainning.lr=3",
            "dataset.train.sampling=steam",
            "training.max_steps=1e5",
            "+experiment/gen5=x",
            "model.head.num_classes=3",
            "model.backbone.enable_masking=true",
        ]
    )
    assert "number" in said["training.learning_rate"]
    assert "set on the command line: training.learning_rate=abc" in said["training.learning_rate"]
    assert "whole number" in said["batch_size.train"]
    assert "greater than 0" in said["batch_size.eval"]
    assert "allowed in training" in said["trainning.lr"]
    assert "did you mean stream?" in said["dataset.train.sampling"]
    assert "write 100000" in said["training.max_steps"]
    assert "experiment/gen4" in said["experiment/gen5"]
    assert "8 classes: pedestrian" in said["model.head.num_classes"]
    assert "is true; allowed: false" in said["model.backbone.enable_masking"]


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "true", "[1]", "'0.1'"])
def test_a_learning_rate_is_a_positive_finite_number(value: str) -> None:
    assert list(problems([*TRAIN, f"training.learning_rate={value}"])) == ["training.learning_rate"]


def test_what_only_a_library_would_refuse_later() -> None:
    overrides = [f"reproduce.seed_everything={2**32}", "wandb.project_name=a/b", "dataset.ev_repr_name=../../elsewhere"]
    assert set(problems([*TRAIN, *overrides])) == {override.partition("=")[0] for override in overrides}


@pytest.mark.parametrize("name", ["..", ".", "a\nb", "a\u2028b", "a" * 129, "a\0b", "a\udcff"])
def test_a_project_is_a_folder_in_run_root(name: str) -> None:
    with pytest.raises(ValidationError):
        WandbConfig(project_name=name, group_name=None)


def test_a_line_break_in_an_override_is_refused() -> None:
    """It would make a command.txt of which no run can be resumed, and a table that cannot be printed."""
    broken = ["wandb.group_name=two\nlines", "dataset.name=two\u2028lines", "dataset.path=/data/\udcff"]
    said = problems([*TRAIN, *broken])
    assert set(said) == {ascii(text) for text in broken}
    assert all("a command is one line of text" in message for message in said.values())


def test_missing_values_are_all_named() -> None:
    assert {"dataset", "model", "checkpoint"} <= set(problems(["use_test_set=true"], "val"))
    assert list(problems(["dataset=gen4", "model=maxvit_yolox/plain_lstm"])) == ["dataset.path"]


def test_mistakes_in_yaml_files_name_file_and_line(folder: Path) -> None:
    (folder / "experiment" / "gen4" / "mine.yaml").write_text(
        "# @package _global_\n"
        "training:\n  learning_rat: 0.1\n  weight_decay: heavy\n"
        "model:\n  backbone:\n    embed_dimm: 3\n"
    )
    said = problems([*TRAIN[:3], "+experiment/gen4=mine"], folder=folder)
    assert "did you mean training.learning_rate?" in said["training.learning_rat"]
    assert "set in config/experiment/gen4/mine.yaml:3" in said["training.learning_rat"]
    assert "set in config/experiment/gen4/mine.yaml:4" in said["training.weight_decay"]
    assert "set in config/experiment/gen4/mine.yaml:7" in said["model.backbone.embed_dimm"]


def test_places_follow_packages(folder: Path) -> None:
    path = folder / "model" / "maxvit_yolox" / "default.yaml"
    path.write_text(path.read_text().replace("depth: 0.67", "depth: deep"))
    line = path.read_text().splitlines().index("  depth: deep") + 1
    assert f"config/model/maxvit_yolox/default.yaml:{line}" in problems(TRAIN, folder=folder)["model.fpn.depth"]


@pytest.mark.parametrize("text", ["training: [", "training: {lr_scheduler: {total_steps: '${..nothing}'}}"])
def test_broken_yaml_is_reported_without_losing_other_mistakes(folder: Path, text: str) -> None:
    (folder / "experiment" / "gen4" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    said = problems([*TRAIN[:3], "+experiment/gen4=mine", "+nonsense=1"], folder=folder)
    assert len(said) == 2
    assert "nonsense" in said


def test_yaml_of_rvt_is_accepted_with_a_warning_for_each_retired_key(folder: Path) -> None:
    """An experiment as RVT's users write it: their defaults list, their keys, their ???."""
    (folder / "experiment" / "gen4" / "mine.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - /model/maxvit_yolox: default\n"
        "training: {precision: 16, lr_scheduler: {use: True, total_steps: '${..max_steps}'}}\n"
        "logging: {ckpt_every_n_epochs: 1, train: {metrics: {compute: false}, log_model_every_n_steps: 5000}}\n"
        "wandb: {artifact_name: null, resume_only_weights: False}\n"
        "model:\n  backbone:\n    embed_dim: 32\n    T_max_chrono_init: [4, 8, 16, 32]\n"
        "    stage:\n      attention:\n        partition_size: ???\n"
    )
    overrides = ["model=rnndet", "dataset=gen4", "dataset.path=DATA", "+experiment/gen4=mine"]
    loaded = load("train", overrides, folder=folder)
    assert loaded.sections["model"].backbone.embed_dim == 32
    assert loaded.sections["training"].precision == 16
    retired = [warning.split()[0] for warning in loaded.warnings]
    assert retired == [
        "logging.ckpt_every_n_epochs",
        "logging.train.metrics",
        "logging.train.log_model_every_n_steps",
        "model.backbone.T_max_chrono_init",
        "wandb.artifact_name",
        "wandb.resume_only_weights",
    ]


def test_a_plain_key_that_no_file_sets_is_an_error() -> None:
    said = problems([*TRAIN, "dataset.class_groups.mine=[car]"])
    assert "+dataset.class_groups.mine=[car]" in said["dataset.class_groups.mine"]
    config = load_train_config([*TRAIN, "+dataset.class_groups.mine=[car]"])
    assert config.dataset.class_groups["mine"] == ("car",)


def test_loading_inside_of_a_hydra_run_leaves_it_alone() -> None:
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        load_train_config(TRAIN)
        assert compose("train", ["dataset=gen1"]).dataset.name == "gen1"


def test_dumped_values_are_plain_and_make_the_same_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """config.yaml, checkpoints and WandB hold them; relative paths are those of the folder in which the run started."""
    monkeypatch.chdir(tmp_path)
    config = load_train_config([*TRAIN, "dataset.path=DATA", "run_root=/runs"])
    assert config.model_dump(mode="json")["dataset"]["path"] == f"{tmp_path}/DATA"
    config = load_train_config([*TRAIN, "dataset.path=/DATA", "run_root=/runs"])
    dumped = yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))
    assert dumped["training"]["lr_scheduler"]["total_steps"] == 100000
    assert type(config).model_validate_json(json.dumps(dumped), strict=True) == config


@pytest.mark.parametrize("dataset", ["gen4", "gen4_1mpx", "gen1", "toy", "etram3"])
def test_the_network_with_s5_cells_is_a_complete_choice(dataset: str) -> None:
    config = load_train_config(["model=maxvit_yolox/s5", f"dataset={dataset}", "dataset.path=DATA"])
    assert config.model.backbone.stage.cell == "s5"
    assert config.model.backbone.stage.s5.carry_state


@pytest.mark.parametrize("experiment", ["gen4=small", "gen4=plain_lstm_640x360_baseline", "gen1=small", "toy=demo"])
def test_an_experiment_keeps_the_network_that_is_chosen(experiment: str) -> None:
    """With the sizes of the experiment."""
    overrides = [f"dataset={experiment.split('=')[0]}", "dataset.path=DATA", f"+experiment/{experiment}"]
    plain = load_train_config([*overrides, "model=maxvit_yolox/default"]).model
    chosen = load_train_config([*overrides, "model=maxvit_yolox/s5"]).model
    assert (plain.backbone.stage.cell, chosen.backbone.stage.cell) == ("lstm", "s5")
    assert (chosen.backbone.embed_dim, chosen.fpn.depth) == (plain.backbone.embed_dim, plain.fpn.depth)


def test_a_model_of_before_there_were_cells_has_lstms(folder: Path) -> None:
    """A YAML file of RVT's time names no cell and has no other section than `lstm`."""
    model = folder / "model" / "maxvit_yolox" / "default.yaml"
    text = model.read_text().replace("    cell: lstm\n", "")
    section = text.index("    s5:\n")
    model.write_text(text[:section] + text[text.index("fpn:\n") :])
    loaded = load("train", ["model=maxvit_yolox/default", "dataset=gen4", "dataset.path=DATA"], folder=folder)
    assert loaded.sections["model"].backbone.stage.cell == "lstm"
    assert loaded.sections["model"].backbone.stage.s5 is None


def test_a_mistyped_cell_is_answered_with_the_nearest_and_an_import_path_needs_a_colon() -> None:
    said = problems([*TRAIN, "model.backbone.stage.cell=lstn"])["model.backbone.stage.cell"]
    assert "module:Name, a class of your own (docs/extending.md)" in said
    assert "did you mean lstm?" in said
    said = problems([*TRAIN, "model.backbone.stage.cell=my parts:Cell"])["model.backbone.stage.cell"]
    assert "module:Name" in said
    config = load_train_config([*TRAIN, "model.backbone.stage.cell=my.parts:Cell"])
    assert config.model.backbone.stage.cell == "my.parts:Cell"
    options = [*TRAIN, "model.backbone.stage.cell_options={leak: 0.5}"]
    assert "section model.backbone.stage.lstm" in problems(options)["model.backbone.stage.cell_options"]
