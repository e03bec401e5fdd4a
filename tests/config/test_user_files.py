"""Files of a fork of RVT, put into a user's folder as they are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from config.command_line import hydra_command
from config.errors import ConfigError
from config.loading import load_train_config
from config.schema import ModelConfig, TrainConfig

RVT_MODEL = """
# @package _global_
defaults:
  - override /model: rnndet
model:
  backbone:
    name: MaxViTRNN
    compile: {enable: False, args: {mode: reduce-overhead}}
    input_channels: 20
    enable_masking: False
    partition_split_32: 2
    embed_dim: 64
    dim_multiplier: [1, 2, 4, 8]
    num_blocks: [1, 1, 1, 1]
    T_max_chrono_init: [4, 8, 16, 32]
    use_plain_lstm: true
    use_enhanced_convlstm: false
    stem: {patch_size: 4}
    stage:
      downsample: {type: patch, overlap: True, norm_affine: True}
      attention:
        use_torch_mha: False
        partition_size: [6, 10]
        dim_head: 32
        attention_bias: True
        mlp_activation: gelu
        mlp_gated: False
        mlp_bias: True
        mlp_ratio: 4
        drop_mlp: 0
        drop_path: 0
        ls_init_value: 1e-5
      lstm: {dws_conv: False, dws_conv_only_hidden: True, dws_conv_kernel_size: 3, drop_cell_update: 0}
  fpn:
    name: PAFPN
    compile: {enable: False, args: {mode: reduce-overhead}}
    depth: 0.67
    in_stages: [1, 2, 3, 4]
    depthwise: False
    act: silu
  head:
    name: YoloX
    compile: {enable: False, args: {mode: reduce-overhead}}
    depthwise: False
    act: silu
    num_classes: 8
    size_aware_loss: true
    size_aware_weight: 2.0
    small_threshold: 1024
    medium_threshold: 9216
    weight_type: exponential
"""
FULL = """
# @package _global_
experiment_name: sizeaware_test
description: "Small objects: do they gain?"
target_metrics: {small_AP: "> 0.18", overall: 0.3}
success_criteria: [better, not worse]
defaults:
  - /model/maxvit_yolox: size_aware
training: {max_steps: 100000, learning_rate: 0.0001}
validation: {val_check_interval: 10000, check_val_every_n_epoch: null, confidence_threshold: 0.001}
+model:
  head: {size_aware_weight: 2.5}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "model/maxvit_yolox/size_aware.yaml", RVT_MODEL)
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.lstrip())


def loaded(folder: Path, experiment: str, *overrides: str) -> TrainConfig:
    write(folder, "experiment/gen4/mine.yaml", experiment)
    typed = [f"--config-dir={folder}", "dataset=gen4", "dataset.path=.", "+experiment/gen4=mine.yaml", *overrides]
    return load_train_config(typed)


def refusal(folder: Path, experiment: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, experiment, *overrides)
    return str(caught.value)


def size_weight(model: ModelConfig) -> tuple[str | None, float]:
    return model.loss.size_weight.kind, model.loss.size_weight.weight


@pytest.mark.filterwarnings("ignore:model.backbone.T_max_chrono_init")
def test_a_forks_model_and_experiment_work_as_they_are(folder: Path) -> None:
    config = loaded(folder, FULL)
    assert config.model.fpn.in_stages == (1, 2, 3, 4)
    assert size_weight(config.model) == ("exponential", 2.5)  # the experiment's wins over the model's
    assert config.model.postprocess.confidence_threshold == 0.001
    assert config.model.postprocess.nms_threshold == 0.45
    assert config.training.learning_rate == 0.0001
    assert config.notes == {
        "experiment_name": "sizeaware_test",
        "description": "Small objects: do they gain?",
        "target_metrics": {"small_AP": "> 0.18", "overall": 0.3},
        "success_criteria": ["better", "not worse"],
    }
    typed = loaded(folder, FULL, "model.loss.size_weight.weight=3", "model.postprocess.confidence_threshold=0.1")
    assert size_weight(typed.model) == ("exponential", 3)
    assert typed.model.postprocess.confidence_threshold == 0.1


@pytest.mark.filterwarnings("ignore:model.backbone.T_max_chrono_init")
def test_hydras_own_program_reads_them_likewise(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It composes anew: what has been checked must be what is run."""
    (folder / "data" / "train").mkdir(parents=True)
    write(folder, "experiment/gen4/mine.yaml", FULL)
    typed = [f"--config-dir={folder}", "dataset=gen4", f"dataset.path={folder / 'data'}", "+experiment/gen4=mine"]
    configs = []
    monkeypatch.setattr(sys, "argv", ["train.py", *typed, "hardware.gpus=0"])
    hydra_command("train", lambda config, _: configs.append(config) or 0)()
    assert configs == [load_train_config([*typed, "hardware.gpus=0"])]
    assert size_weight(configs[0].model) == ("exponential", 2.5)


GLOBAL = "# @package _global_\n"
PLAIN = f"{GLOBAL}defaults: [{{override /model: maxvit_yolox/plain_lstm}}]\n"


@pytest.mark.parametrize(
    "chosen",
    ["defaults: [{model: maxvit_yolox/plain_lstm_4scale}, _self_]", "model: maxvit_yolox/plain_lstm_4scale"],
)
def test_a_network_is_chosen_by_any_of_their_spellings(folder: Path, chosen: str) -> None:
    assert loaded(folder, GLOBAL + chosen).model.fpn.in_stages == (1, 2, 3, 4)


def test_a_name_and_a_section_with_a_plus_go_together(folder: Path) -> None:
    text = "model: maxvit_yolox/plain_lstm_4scale\n+model: {backbone: {embed_dim: 32}}"
    model = loaded(folder, GLOBAL + text).model
    assert (model.fpn.in_stages, model.backbone.embed_dim) == ((1, 2, 3, 4), 32)


def test_a_model_that_is_made_of_another_has_its_parts(folder: Path) -> None:
    text = (
        "defaults: [/model/maxvit_yolox/plain_lstm_4scale]\nmodel: {head: {size_aware_loss: true, weight_type: step}}"
    )
    write(folder, "model/maxvit_yolox/size_aware.yaml", GLOBAL + text)
    model = loaded(folder, f"{GLOBAL}defaults: [{{/model/maxvit_yolox: size_aware}}]").model
    assert (model.fpn.in_stages, size_weight(model)) == ((1, 2, 3, 4), ("step", 2.0))


def test_a_loss_that_is_switched_off_is_off(folder: Path) -> None:
    off = "model: {head: {size_aware_loss: false, size_aware_weight: 9}}"
    assert loaded(folder, PLAIN + off, "model=maxvit_yolox/plain_lstm_sizeaware").model.loss.size_weight.kind is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: {head: {name: ABC}}", ["model.head.name", "allowed: 'YoloX'", "docs/extending.md"]),
        ("model: {backbone: {use_enhanced_convlstm: true}}", ["allowed: false", "there is no such cell"]),
        ("model: {backbone: {use_plain_lstm: false}}", ["allowed: true", "lstm.dws_conv=true"]),
        (
            "model: {backbone: {use_plain_lstm: true, stage: {lstm: {dws_conv: true}}}}",
            ["contradicts model.backbone.stage.lstm.dws_conv=true"],
        ),
        (
            "model: {backbone: {stage: {attention: {partition_size: [6, 12]}}}}",
            ["partition_size", "make it [6, 10]"],
        ),
        ("model: {head: {weight_type: step}}", ["without model.head.size_aware_loss: true"]),
        ("model: {head: {size_aware_weight: 3}}", ["model.loss.size_weight.kind", "is null"]),
        ("model: {head: {size_aware_loss: true, weight_type: cubic}}", ["model.loss.size_weight.kind", "mine.yaml:3"]),
        (
            "model: {head: {size_aware_loss: true}, loss: {size_weight: {kind: step}}}",
            ["model.loss.size_weight.kind=exponential, which is step there"],
        ),
        ("notes: all\ndescription: x", ['notes\n      is "all"; allowed: a mapping']),
        ("trainning: {max_steps: 1}", ["trainning", "did you mean training"]),
        ("model: {}\n+model: {}", ["the section model twice"]),
        ("+model: {head: {name: ABC}}", ["mine.yaml:3"]),
        ("head: {size_aware_loss: true}", ["did you mean model.head?"]),
        ("model: {head: {size_aware_wieght: 2}}", ["did you mean model.loss.size_weight.weight?"]),
        (
            "model: {head: {size_aware_weight: 2.0}}",
            ["size_weight.weight\n", "has no effect", "kind is null", "mine.yaml:3"],
        ),
        ("architecture: {lstm: plain}", ["What is meant as a note goes into notes: {architecture: ...}"]),
    ],
)
def test_what_contradicts_or_was_never_meant_is_refused_in_words(folder: Path, text: str, said: list[str]) -> None:
    refused = refusal(folder, PLAIN + text)
    assert all(words in refused for words in said), refused


@pytest.mark.parametrize(
    "typed", ["model.backbone.stage.lstm.dws_conv=true", "model=maxvit_yolox/s5", "+model.backbone.use_plain_lstm=true"]
)
def test_a_plain_lstm_is_one_whatever_file_or_line_says_otherwise(folder: Path, typed: str) -> None:
    setting = "stage: {lstm: {dws_conv: true}}" if "plain" in typed else "use_plain_lstm: true"
    refused = refusal(folder, f"{PLAIN}model: {{backbone: {{{setting}}}}}", typed)
    assert "model.backbone.use_plain_lstm\n      is true, which contradicts model.backbone.stage." in refused


def test_two_networks_in_one_experiment_are_refused(folder: Path) -> None:
    refused = refusal(folder, f"{PLAIN}model: maxvit_yolox/s5")
    assert "chooses several networks: maxvit_yolox/plain_lstm, maxvit_yolox/s5" in refused


def test_an_experiment_without_its_first_line_is_told_the_line(folder: Path) -> None:
    refused = refusal(folder, FULL.replace(GLOBAL, ""))
    assert refused.startswith("1 mistake in the configuration")
    assert "is a file of an experiment, which lacks its first line" in refused
    assert "# @package _global_" in refused
    assert f"{folder}/experiment/gen4/mine.yaml" in refused


def test_a_file_that_has_changed_is_read_anew(folder: Path) -> None:
    """Files are parsed once in a process, whatever their time says."""
    for seed in (11, 12, 11):
        config = loaded(
            folder, f"# @package _global_\nreproduce: {{seed_everything: {seed}}}\n", "model=maxvit_yolox/default"
        )
        assert config.reproduce.seed_everything == seed
