"""What may stand in training.stages, and the config that each stage gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.errors import ConfigError
from config.loading import load_train_config, load_validation_config
from config.stages import changes, differing_stage, in_normal_form, stage_config

TWO = (
    "training.stages=[{training: {max_steps: 30, learning_rate: 0.01}, dataset: {frame_hw: [360, 640]}},"
    "{training: {max_steps: 10}, dataset: {frame_hw: [720, 1280]}, batch_size: {train: 2},"
    " model: {backbone: {partition_split_32: 4}}}]"
)

HALF = "dataset.downsample_by_factor_2=true"
FIRST_AS_THE_CONFIG = (
    "training.stages=[{training: {max_steps: 3}}, {training: {max_steps: 3}, dataset: {frame_hw: [720, 1280]},"
    " model: {backbone: {partition_split_32: 4}}}]"
)


def gen4(*overrides: str) -> list[str]:
    return ["dataset=gen4", "dataset.path=.", "model=maxvit_yolox/plain_lstm", *overrides]


def test_each_stage_has_a_config_of_its_own_and_the_run_ends_as_its_last() -> None:
    config = load_train_config(gen4(TWO, "training.learning_rate=0.002", "batch_size.train=8"))
    first, second = stage_config(config, 1), stage_config(config, 2)
    told = [
        (one.dataset.loaded_hw, one.batch_size.train, one.training.learning_rate, one.training.max_steps)
        for one in (first, second, config)
    ]
    assert told == [((360, 640), 8, 0.01, 30), ((720, 1280), 2, 0.002, 10), ((720, 1280), 2, 0.002, 40)]
    assert first.training.lr_scheduler.total_steps == 30, "a schedule is the stage's own"
    assert (first.input_hw, second.input_hw) == ((384, 640), (768, 1280))
    assert dict((key, (before, after)) for key, before, after in changes(config, 1, 2)) == {
        "training.learning_rate": (0.01, 0.002),
        "dataset.frame_hw": ([360, 640], [720, 1280]),
        "batch_size.train": (8, 2),
        "model.backbone.partition_split_32": (2, 4),
    }
    assert in_normal_form(config).model_dump() == config.model_dump()


def test_a_network_can_be_shown_the_frames_of_another_stage() -> None:
    config = load_train_config(gen4(TWO))
    shown = stage_config(config, 1, frames_of=2)
    assert (shown.dataset.loaded_hw, shown.partition_size) == ((720, 1280), stage_config(config, 2).partition_size)
    assert shown.training.learning_rate == 0.01


def test_one_setting_of_one_stage_can_be_typed() -> None:
    experiment = ["dataset=gen4", "dataset.path=.", "+experiment/gen4=plain_lstm_progressive_360_540_720"]
    config = load_train_config([*experiment, "training.stages.1.batch_size.train=3"])
    assert [stage_config(config, number).batch_size.train for number in (1, 2, 3)] == [6, 3, 2]
    assert [stage_config(config, number).partition_size for number in (1, 2, 3)] == 3 * [(6, 10)]


def test_stages_that_were_typed_can_be_made_longer() -> None:
    config = load_train_config(gen4(TWO, "training.stages.1.training.max_steps=20"))
    assert (stage_config(config, 2).training.max_steps, config.training.max_steps) == (20, 50)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["training.stages=[]"], "a list that is not empty"),
        (["training.stages={training: {max_steps: 3}}"], "a list"),
        (
            ["training.stages=[{training: {learning_rate: 1}}]"],
            "0.training.max_steps\n      is missing",
        ),
        (["training.stages=[{max_steps: 3}]"], "did you mean training.max_steps?"),
        (["training.stages=[{training: {max_steps: 3}, batch_size: {trian: 3}}]"], "did you mean batch_size.train?"),
        (["training.stages=[{training: {max_steps: 3}, dataset: {classes: [a]}}]"], "is the same for the whole run"),
        (["training.stages=[{training: {max_steps: 3}, dataset: {frame_hw: [90, 90]}}]"], "which distorts the sensor"),
        (["training.stages=[{training: {max_steps: 1.5}}]"], "training.stages.0.training.max_steps\n      is 1.5"),
        ([TWO.replace("partition_split_32: 4", "partition_split_32: 0")], "training.stages.1.model.backbone.part"),
        ([TWO.replace("max_steps: 10", "max_steps: 10, lr_scheduler: {total_steps: 9}")], "would end before the train"),
        (
            [
                "dataset.frame_hw=[540,960]",
                "training.stages=[{training: {max_steps: 3}, dataset: {downsample_by_factor_2: true}}]",
            ],
            "says otherwise",
        ),
        ([TWO, "training.max_steps=40"], "training.max_steps\n      has no effect, since each stage has its own"),
        ([TWO, "dataset.frame_hw=[360,640]"], "dataset.frame_hw\n      has no effect"),
        ([TWO, "training.lr_scheduler.total_steps=500000"], "training.lr_scheduler.total_steps\n      has no effect"),
        (["training.stages.0.batch_sise.train=3"], "there is no such key"),
        ([TWO, HALF], "dataset.downsample_by_factor_2\n      has no effect, since each stage has frames of its own"),
        ([TWO, HALF, "dataset.frame_hw=null"], "dataset.frame_hw\n      has no effect"),
        (
            [FIRST_AS_THE_CONFIG, "dataset.frame_hw=[540,960]", HALF],
            "training.stages.0\n      dataset.downsample_by_factor_2 makes frames of [360, 640]",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_train_config(gen4(*overrides))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "sizes"),
    [
        ([FIRST_AS_THE_CONFIG, HALF], [(360, 640), (720, 1280)]),
        # a size that all stages replace, or that a remedy replaces, contradicts nothing
        ([FIRST_AS_THE_CONFIG, "dataset.frame_hw=null", HALF], [(360, 640), (720, 1280)]),
        ([TWO, "+training.stages.0.dataset.frame_hw=null", HALF], [(360, 640), (720, 1280)]),
    ],
)
def test_a_size_typed_beside_stages_counts_where_a_stage_has_none(
    overrides: list[str], sizes: list[tuple[int, int]]
) -> None:
    config = load_train_config(gen4(*overrides))
    assert [stage_config(config, number).dataset.loaded_hw for number in (1, 2)] == sizes


def test_a_file_that_sets_stages_and_what_they_all_replace_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "experiment" / "gen4"
    folder.mkdir(parents=True)
    stages = "  stages:\n    - training: {max_steps: 5}\n"
    (folder / "mine.yaml").write_text(f"# @package _global_\ntraining:\n  max_steps: 10\n{stages}")
    with pytest.raises(ConfigError, match="has no effect, since each stage has its own") as error:
        load_train_config(["--config-dir", str(tmp_path), *gen4("+experiment/gen4=mine")])
    assert "mine.yaml:3" in str(error.value)


def test_a_validation_may_name_a_stage_that_exists() -> None:
    validation = gen4(TWO, "checkpoint=x.ckpt")
    assert load_validation_config([*validation, "stage=2"]).stage == 2
    with pytest.raises(ConfigError, match=r"is 3, and there are 2 in training\.stages"):
        load_validation_config([*validation, "stage=3"])
    with pytest.raises(ConfigError, match=r"training\.stages is null"):
        load_validation_config(gen4("checkpoint=x.ckpt", "stage=1"))


def test_what_has_been_trained_is_compared_stage_by_stage() -> None:
    recorded = load_train_config(gen4(TWO)).model_dump(mode="json")
    longer = load_train_config(gen4(TWO.replace("max_steps: 10", "max_steps: 10, weight_decay: 0.1")))
    assert differing_stage(recorded, longer, 1) is None, "only the second stage is another one"
    assert differing_stage(recorded, longer, 2) == (2, "training.weight_decay", 0, 0.1)
