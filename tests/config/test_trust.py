"""YAML files and recorded commands of other people: they set this project's keys, and call nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from config.command_line import hydra_command
from config.errors import ConfigError
from config.loading import load, load_train_config

CALLS = "{x: {_target_: pathlib.Path.touch, self: {_target_: pathlib.Path, _args_: [%s]}}}"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    for group in ("dataset", "model", "experiment"):
        (tmp_path / "own" / group).mkdir(parents=True)
    return tmp_path / "own"


def write(own: Path, name: str, text: str) -> None:
    (own / name).parent.mkdir(parents=True, exist_ok=True)
    (own / name).write_text(text)


def command(own: Path, *overrides: str) -> list[str]:
    model = () if any(text.startswith("model=") for text in overrides) else ("model=maxvit_yolox/default",)
    data = () if any(text.startswith("dataset=") for text in overrides) else ("dataset=gen4",)
    return [f"--config-dir={own}", *data, *model, "dataset.path=DATA", "hardware.gpus=0", *overrides]


def problems(own: Path, *overrides: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load("train", command(own, *overrides))
    return {problem.key: str(problem) for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("files", "override"),
    [
        ({"dataset/d.yaml": "# @package _global_\nhydra: {callbacks: CALLS}\n"}, "dataset=d"),
        ({"dataset/d.yaml": "# @package hydra\ncallbacks: CALLS\n"}, "dataset=d"),
        ({"model/m.yaml": "# @package hydra.callbacks\nx: {_target_: this}\n"}, "model=m"),
        ({"experiment/e.yaml": "# @package _global_\nhydra: {callbacks: CALLS}\n"}, "+experiment=e"),
        (
            {"experiment/e.yaml": "# @package _global_\nhydra: {job_logging: {filters: {x: {(): os.abort}}}}\n"},
            "+experiment=e",
        ),
        ({"experiment/e.yaml": "# @package _global_\nhydra: {job: {env_set: {PATH: /tmp}}}\n"}, "+experiment=e"),
        (
            {
                "experiment/e.yaml": "# @package _global_\ndefaults: [override /hydra/hydra_logging: evil]\n",
                "hydra/hydra_logging/evil.yaml": "version: 1\nfilters: {x: {(): os.abort}}\n",
            },
            "+experiment=e",
        ),
        (
            {
                "experiment/e.yaml": "# @package _global_\ndefaults: [/experiment/inner@hydra.callbacks]\n",
                "experiment/inner.yaml": "x: {_target_: this}\n",
            },
            "+experiment=e",
        ),
        ({"experiment/e.yaml": "x: {_target_: this}\n"}, "+experiment@hydra.callbacks=e"),
        ({"hydra/e.yaml": "callbacks: CALLS\n"}, "+hydra=e"),
    ],
)
@pytest.mark.parametrize("shown", [(), ("--cfg", "job")])
def test_no_file_of_a_group_reaches_hydras_own_node(
    files: dict[str, str],
    override: str,
    shown: tuple[str, ...],
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    marker = tmp_path / "called"
    (tmp_path / "data" / "train").mkdir(parents=True)
    for name, text in files.items():
        write(own, name, text.replace("CALLS", CALLS % marker))
    arguments = command(own, override, f"dataset.path={tmp_path / 'data'}")
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments, *shown])
    with pytest.raises(SystemExit) as caught:
        hydra_command("train", lambda config, argv: 0)()
    assert caught.value.code == 2
    assert "hydra" in capsys.readouterr().err
    assert not marker.exists()


def test_what_is_typed_may_set_hydras_node(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(own, "dataset/d.yaml", "defaults: [gen4, _self_]\nname: d\n")
    (tmp_path / "data" / "train").mkdir(parents=True)
    typed = ["dataset=d", f"dataset.path={tmp_path / 'data'}", "+hydra.job.env_set.STREAMRVT_TYPED=set"]
    monkeypatch.setattr(sys, "argv", ["train.py", *command(own, *typed)])
    seen = []
    hydra_command("train", lambda config, argv: seen.append(os.environ["STREAMRVT_TYPED"]) or 0)()
    assert seen == ["set"]


def test_a_data_set_sets_the_data_set_only(own: Path) -> None:
    write(own, "dataset/d.yaml", "# @package _global_\ntraining: {max_steps: 1}\n")
    assert "# @package _global_" in problems(own, "dataset=d")["dataset"]
    write(own, "dataset/d.yaml", "defaults: [gen4, /experiment/e@_global_, _self_]\n")
    write(own, "experiment/e.yaml", "training: {max_steps: 1}\n")
    said = problems(own, "dataset=d")["dataset"]
    assert "a file of dataset/ sets dataset only" in said
    assert str(own / "experiment" / "e.yaml") in said


def test_an_experiment_without_its_first_line(own: Path) -> None:
    write(own, "experiment/e.yaml", "training: {max_steps: 1}\n")
    said = problems(own, "+experiment=e")
    assert set(said) == {"experiment"}
    assert "lacks its first line. Add it, to let it set sections: # @package _global_" in said["experiment"]
    write(own, "experiment/e.yaml", "# @package _global_\ntraining: {max_steps: 1}\n")
    assert load_train_config(command(own, "+experiment=e")).training.max_steps == 1


def test_an_experiment_may_bring_data_set_and_model(own: Path) -> None:
    write(own, "dataset/d.yaml", "defaults: [gen4, _self_]\nname: d\n")
    text = "# @package _global_\ndefaults: [override /dataset: d, override /model: maxvit_yolox/s5]\n"
    write(own, "experiment/e.yaml", text)
    config = load_train_config(command(own, "+experiment=e", "dataset=gen1"))
    assert config.dataset.name == "gen1"  # what is typed wins
    assert config.model.backbone.stage.cell == "lstm"


def test_nothing_else_is_instantiated(own: Path) -> None:
    options = "{backbone: {stage: {cell: 'a:B', cell_options: {x: [{_target_: os.abort}]}}}}"
    write(own, "model/m.yaml", f"defaults: [maxvit_yolox/default, _self_]\n{options[1:-1]}\n")
    said = problems(own, "model=m")["model.backbone.stage.cell_options.x.0._target_"]
    assert "nothing is instantiated here" in said
    assert f"set in {own}/model/m.yaml:2" in problems(own, "model=m")["model.backbone.stage.cell_options.x.0._target_"]
