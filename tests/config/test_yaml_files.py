"""YAML that attacks is refused in one line, at once; what Hydra reads passes through the same check."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from config.errors import UserError
from config.loading import load_dataset_config
from config.search_path import SearchPath
from config.yaml_files import read_yaml

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
ATTACKS = [
    (LAUGHS, "stand for more than"),
    ("x: &a [*a]\n", "holds itself"),
    ("x: &a\n  <<: *a\n", "holds itself"),
    ("x: " + "[" * 5000 + "]" * 5000, "nested more than"),
    ("x: " + "{a: " * 3000 + "1" + "}" * 3000, "nested more than"),
    ("# " + "x" * 2**21, "2,097,154 bytes"),
    ("x: " + "9" * 10_000, "limit"),
    ("x: 2020-99-99", "month"),
    ("[1, 2]", "a list, not keys"),
    ("x: \0", "unacceptable"),
    ("x: [\n", r"line 2, column 1"),
    ("x: !!python/object/apply:os.system [echo]", "constructor"),
]


@pytest.mark.parametrize(("text", "message"), ATTACKS)
def test_an_attack_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"^\S*a\.yaml is not valid YAML[^\n]*{message}[^\n]*$"):
        read_yaml(tmp_path / "a.yaml")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    os.mkfifo(tmp_path / "dataset" / "mine.yaml")
    with pytest.raises(UserError, match="no file but a pipe"):
        read_yaml(tmp_path / "dataset" / "mine.yaml")
    assert list(SearchPath((tmp_path,)).choices("dataset")) == []


@pytest.mark.parametrize("text", [LAUGHS, "x: &a [*a]\n", "defaults:\t- gen1\n"])
def test_so_it_is_as_a_file_of_a_group(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"(?s)cannot be composed: .*mine\.yaml"):
        load_dataset_config([f"--config-dir={tmp_path}", "dataset=mine"])


def test_anchors_that_mean_no_harm_are_expanded(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}\n")
    assert read_yaml(tmp_path / "a.yaml")["b"] == {"x": 1, "y": [{"x": 1}, {"x": 1}]}
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "a.yaml") == {}
