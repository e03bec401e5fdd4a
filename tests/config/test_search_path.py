"""Folders of the user's own with data sets, models and experiments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from config.command_line import hydra_command
from config.errors import ConfigError
from config.loading import load, load_dataset_config, load_train_config, load_validation_config
from config.search_path import CONFIG_FOLDER, SearchPath, with_absolute_folders
from scripts import check_dataset, compact_frames, preprocess, render

PROJECT = CONFIG_FOLDER.parent
MINE = "# Two lanes and a tram\ndefaults: [gen4, _self_]\nname: mine\nsequence_length: 7\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's folder: one data set, one model, one experiment."""
    files = {
        "dataset/mine.yaml": MINE,
        "model/small.yaml": "# A small one\ndefaults: [maxvit_yolox/default, _self_]\nbackbone: {embed_dim: 32}\n",
        "experiment/mine/quick.yaml": "# @package _global_\n# A quick look\ntraining: {max_steps: 12}\n",
    }
    for name, text in files.items():
        path = tmp_path / "größe, a=b" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return tmp_path / "größe, a=b"


def command(*folders: str) -> list[str]:
    return [*folders, "dataset=mine", "dataset.path=DATA", "model=small", "+experiment/mine=quick"]


def problem(arguments: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load("train", arguments)
    return str(caught.value)


def test_choices_of_a_users_folder_are_found(own: Path) -> None:
    config = load_train_config(command(f"--config-dir={own}"))
    assert (config.dataset.sequence_length, config.model.backbone.embed_dim, config.training.max_steps) == (7, 32, 12)
    assert load_dataset_config(["--config-dir", str(own), "dataset=mine"]).name == "mine"
    validation = load_validation_config([*command("-cd", str(own))[:-1], "checkpoint=a.ckpt"])
    assert validation.dataset.name == "mine"


def test_hydras_search_path_means_the_same(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = load_train_config(command(f"--config-dir={own}"))
    for typed in (f"['file://{own}']", f"['{own}']", f"['{own.name}']"):
        assert load_train_config(command(f"hydra.searchpath={typed}")) == asked
    assert "allowed: a list" in problem(command(f"hydra.searchpath={tmp_path}"))


def test_a_package_is_a_folder_too(own: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "packaged").symlink_to(own)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_train_config(command("hydra.searchpath=[pkg://packaged]")).dataset.name == "mine"
    assert "PYTHONPATH" in problem(command("hydra.searchpath=[pkg://no.such.package]"))


def test_several_folders(own: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "dataset"
    other.mkdir(parents=True)
    (other / "longer.yaml").write_text("defaults: [mine, _self_]\nsequence_length: 9\n")
    folders = (f"--config-dir={own}", f"--config-dir={other.parent}")
    assert load_dataset_config([*folders, "dataset=longer"]).sequence_length == 9


def test_recorded_folders_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    typed = [
        "dataset=a",
        "-cd",
        "here",
        "--config-dir=~/there",
        "hydra.searchpath=[file://x,/y]",
        "+hydra.searchpath=[~/ü, '/a b']",
        "--info",
    ]
    absolute = [
        f"--config-dir={folder}"
        for folder in (tmp_path / "here", "/home/me/there", tmp_path / "x", "/y", "/home/me/ü", "/a b")
    ]
    assert with_absolute_folders(typed) == [*absolute, "dataset=a", "--info"]
    assert with_absolute_folders(with_absolute_folders(typed)) == with_absolute_folders(typed)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), "is not a folder"),
        (("notes.txt",), "holds no .yaml file"),
        (("dataset/mine.yml",), ".yml is not read"),
        (("mine.yaml",), "a choice is dataset/NAME.yaml"),
    ],
)
def test_a_folder_without_choices_is_reported(files: tuple[str, ...], said: str, tmp_path: Path) -> None:
    for name in files:
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("name: mine\n")
    assert said in problem([f"--config-dir={tmp_path / 'own'}", "dataset=gen4"])


def test_an_option_without_a_folder() -> None:
    assert "--config-dir FOLDER" in problem(["dataset=gen4", "--config-dir"])


def test_one_name_in_two_folders_is_refused_where_they_differ(own: Path) -> None:
    copy = own / "dataset" / "gen1.yaml"
    copy.write_bytes((CONFIG_FOLDER / "dataset" / "gen1.yaml").read_bytes())
    arguments = [f"--config-dir={own}", "dataset=gen1", "dataset.path=DATA", "model=small"]
    assert load_train_config(arguments).dataset.name == "gen1"
    copy.write_text(copy.read_text() + "sequence_length: 3\n".replace("sequence", "# sequence"))
    said = problem(arguments)
    assert "'gen1' is in two folders" in said
    assert str(copy) in said
    assert "Rename yours" in said


def test_names_in_messages_include_the_users(own: Path) -> None:
    folder = f"--config-dir={own}"
    assert "did you mean mine?" in problem([folder, "dataset=mime", "model=small"])
    assert "dataset=mine       Two lanes and a tram" in problem([folder, "model=small"])
    assert "+experiment/mine=quick  A quick look" in problem([folder, "dataset=mine", "dataset.path=DATA"])
    assert "did you mean quick?" in problem([*command(folder)[:-1], "+experiment/mine=quik"])


def test_a_mistake_in_a_users_file_is_reported_with_its_place(own: Path) -> None:
    file = own / "dataset" / "mine.yaml"
    file.write_text(MINE + "resolution: [1, 2]\n")
    said = problem(command(f"--config-dir={own}"))
    assert f"set in {file}:5" in said
    assert "did you mean dataset.resolution_hw?" in said
    file.write_bytes(b"name: mine\n# \xff\n")
    assert "cannot be composed" in problem(command(f"--config-dir={own}"))


def test_a_sweep_records_the_folder_with_each_run(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    typed = [
        *command("--config-dir", own.name),
        f"dataset.path={tmp_path / 'data'}",
        "hardware.gpus=0",
        "training.max_steps=1,2",
    ]
    commands = []

    def task(config: Any, argv: list[str]) -> int:
        commands.append((config, argv))
        return 0

    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *typed])
    hydra_command("train", task)()
    assert [argv[1] for _, argv in commands] == [f"--config-dir={own}"] * 2
    for config, argv in commands:
        assert load_train_config(argv[1:]) == config


def test_folders_behind_links_are_found_once(own: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "dataset").symlink_to(own / "dataset")
    (linked / "round").symlink_to(linked)
    search, _ = SearchPath.split([f"--config-dir={linked}"])
    assert "mine" in search.choices("dataset")
    assert "round" not in {group.split("/")[0] for group in search.groups()}


def test_a_folder_named_like_a_key_is_no_group(own: Path) -> None:
    (own / "weights").mkdir()
    (own / "weights" / "hparams.yaml").write_text("a: 1\n")
    config = load_train_config([*command(f"--config-dir={own}"), "weights=some.ckpt"])
    assert config.weights == Path("some.ckpt")


def test_completion_help_and_info_know_the_users_names(own: Path) -> None:
    folder = own.rename(own.with_name("own"))  # a shell would quote the other name, which Hydra's completion cannot
    typed = f"python train.py --config-dir {folder} dataset=mi"
    environment = {**os.environ, "COMP_LINE": typed, "COMP_POINT": str(len(typed))}
    for arguments, shown in (
        (["-sc", "query=bash"], "dataset=mine"),
        (["--config-dir", str(folder), "--help"], "dataset=mine"),
        (["--info", "defaults", *command("-cd", str(folder))], "dataset/mine"),
        ([*command("-cd", str(folder)), "--cfg", "job"], "sequence_length: 7"),
    ):
        done = subprocess.run(
            [sys.executable, "train.py", *arguments],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown in done.stdout, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--info", "dataset=gen4"], ["dataset=gen4", "--cfg", "job"]])
def test_output_may_be_cut_short(arguments: list[str]) -> None:
    """As `| head -1` does."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "train.py", *arguments]
    done = subprocess.run(command, cwd=PROJECT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.stderr == ""


def test_scripts_take_the_users_data_sets(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, path = ["--config-dir", str(own)], str(tmp_path / "nothing")
    for main, arguments in (
        (preprocess.main, [path, path, *folder, "dataset=mine", "workers=1"]),
        (compact_frames.main, [path, "dataset=mine", *folder, "workers=1"]),
        (check_dataset.main, [*folder, "dataset=mine", f"dataset.path={path}"]),
    ):
        assert main(arguments) == 2
        assert f"error: {path}" in capsys.readouterr().err  # what it finds missing last: the data
    arguments = render.parse(["sequence", "out.mp4", *folder, "dataset=mine"])
    assert render.choose_boxes(arguments)[0] == load_dataset_config([*folder, "dataset=mine"])
