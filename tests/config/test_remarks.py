"""What is said of settings without effect, and of a size that is typed in vain."""

from pathlib import Path

import pytest

from config.errors import ConfigError
from config.loading import load, load_dataset_config

GEN4 = ["dataset=gen4", "dataset.path=."]
AREA = "model.loss.size_weight"


@pytest.mark.parametrize(
    ("kind", "unread"), [("exponential", ["medium_area"]), ("step", []), ("linear", ["small_area"])]
)
def test_an_area_that_a_size_weight_does_not_read_is_told(kind: str, unread: list[str]) -> None:
    areas = [f"{AREA}.small_area=500", f"{AREA}.medium_area=9000"]
    loaded = load("train", ["model=maxvit_yolox/plain_lstm", *GEN4, f"{AREA}.kind={kind}", *areas])
    assert [line.partition("=")[0] for line in loaded.warnings] == [f"{AREA}.{name}" for name in unread]


@pytest.mark.parametrize(
    "typed",
    ["model.loss.size_weight.weight=2.0", "dataset.data_augmentation.stream.events.drop.max_share=0.5"],
)
def test_what_is_set_and_not_switched_on_is_refused(typed: str) -> None:
    """Its default, too, which nothing else could tell from one that nobody has typed."""
    key = typed.partition("=")[0]
    section = key.rpartition(".")[0]
    switch = "kind" if section == AREA else "prob"
    command = ["model=maxvit_yolox/plain_lstm", *GEN4, typed]
    with pytest.raises(ConfigError, match=rf"{key}\s+has no effect, since {section}.{switch} is (null|0)"):
        load("train", command)
    load("train", [*command, f"{section}.{switch}={'null' if switch == 'kind' else 0}"])  # said with open eyes
    stages = "training.stages=[{training: {max_steps: 1}, dataset: {frame_hw: [360,640]}}]"
    load("train", [*command, stages])  # one of which may switch it on


def test_words_of_an_experiment_that_become_notes_are_named(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndescription: mine\ntarget_metrics: {AP: 0.4}\nmodel: maxvit_yolox/plain_lstm\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    loaded = load("train", [f"--config-dir={tmp_path}", "+experiment=mine", *GEN4, "+notes.who=me"])
    assert loaded.warnings == ("kept with the run as notes, without any effect: description, target_metrics",)


def test_a_frame_size_does_not_win_silently_over_what_is_typed() -> None:
    size = "dataset.frame_hw=[540,960]"
    for value in ("true", "false"):
        with pytest.raises(ConfigError, match=r"dataset\.frame_hw=\[540, 960\] says otherwise.*dataset\.frame_hw=null"):
            load_dataset_config([GEN4[0], size, f"dataset.downsample_by_factor_2={value}"])
    same = ["dataset.frame_hw=[720,1280]", "dataset.downsample_by_factor_2=false"]
    assert load_dataset_config([GEN4[0], *same]).loaded_hw == (720, 1280)
