"""A data set's YAML that inherits from another and has classes of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.errors import ConfigError
from config.loading import load_dataset_config
from config.schema import DatasetConfig


def load(tmp_path: Path, text: str, *overrides: str) -> DatasetConfig:
    (tmp_path / "dataset").mkdir(exist_ok=True)
    (tmp_path / "dataset" / "mine.yaml").write_text(text)
    return load_dataset_config([f"--config-dir={tmp_path}", "dataset=mine", *overrides])


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    return [str(problem) for problem in caught.value.problems]


INHERITS = "defaults: [gen4, _self_]\nclasses: [bus, car]\n"


def test_classes_of_the_other_data_set_are_one_mistake_with_lines_to_paste(tmp_path: Path) -> None:
    (said,) = problems(tmp_path, INHERITS)
    assert said.startswith("dataset.classes\n")
    assert said.endswith(f"set in {tmp_path}/dataset/mine.yaml:2")
    pasted = "\n".join(line.removeprefix(" " * 8) for line in said.splitlines()[2:-1])
    assert pasted.splitlines()[0] == "class_groups: {small: null, medium: null, large: [car, bus]}"
    config = load(tmp_path, f"{INHERITS}{pasted}\n")
    assert config.classes == ("bus", "car")
    assert config.preprocessing.class_ids == {1: "car", 3: "bus"}
    assert config.class_groups == {"large": ("car", "bus")}


def test_ids_that_would_be_inherited_without_a_word_are_told(tmp_path: Path) -> None:
    """Gen1's recordings call a car 0; those of the new data set, 5."""
    text = "defaults: [gen1, _self_]\nclasses: [pedestrian, car]\npreprocessing: {class_ids: {5: car"
    (said,) = problems(tmp_path, f"{text}}}}}\n")
    assert "inherited from config/dataset/gen1.yaml: 0: car, 1: pedestrian" in said
    assert "0: null, 1: null" in said
    for rest, ids in (
        ("0: null, 1: null", {5: "car"}),
        ("0: null, 1: pedestrian", {1: "pedestrian", 5: "car"}),
    ):
        assert load(tmp_path, f"{text}, {rest}}}}}\n").preprocessing.class_ids == ids
    typed = ["dataset.preprocessing.class_ids.0=null", "dataset.preprocessing.class_ids.1=car"]
    assert load(tmp_path, f"{text}}}}}\n", *typed).preprocessing.class_ids == {1: "car", 5: "car"}


def test_ids_may_be_added_where_the_classes_stay(tmp_path: Path) -> None:
    ids = load(tmp_path, "defaults: [gen1, _self_]\npreprocessing: {class_ids: {5: car}}\n").preprocessing.class_ids
    assert ids == {0: "car", 1: "pedestrian", 5: "car"}


def test_one_mistyped_class_is_told_at_its_place(tmp_path: Path) -> None:
    (said,) = problems(tmp_path, "defaults: [gen1, _self_]\npreprocessing: {class_ids: {5: cat}}\n")
    assert said.startswith("dataset.preprocessing.class_ids.5\n      'cat' is no class")
