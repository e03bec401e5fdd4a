"""Overrides as people type them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from config.names import key_tree
from config.overrides import Rewritten, rewrite
from config.quoting import quote, unquote
from config.schema import TrainConfig, ValidationConfig
from config.search_path import SearchPath


def rewritten(*overrides: str, sweep: bool = False, root: type = TrainConfig) -> Rewritten:
    return rewrite(overrides, key_tree(root), SearchPath(), sweep=sweep)


def value_of(hydra_override: str) -> str:
    return str(OverridesParser.create().parse_override(hydra_override).value())


@given(st.text(st.characters(exclude_characters="\n\r\t", exclude_categories=["C"]), min_size=1))
def test_quoted_text_comes_back_from_hydra(text: str) -> None:
    assert value_of(f"key={quote(text)}") == text
    assert unquote(quote(text)) == text


@pytest.mark.parametrize(
    "path",
    [
        "/a/last_epoch=001-step=100000.ckpt",
        "/a b/run (2), final/x.ckpt",
        "~/Übung/größe.ckpt",
        "C:\\runs\\x.ckpt",
        "it's {here}, [1]: 100%",
        "1e5",
        "null.ckpt",
    ],
)
def test_paths_are_text_and_never_grammar(path: str) -> None:
    for typed in (f"checkpoint={path}", f"checkpoint='{path}'", f"checkpoint=‘{path}’", f"+checkpoint={path}"):
        if "'" in path and typed.startswith("checkpoint='"):
            continue
        result = rewritten(typed, root=ValidationConfig)
        assert result.problems == []
        assert value_of(result.values[0]) == path


def test_null_unsets_text() -> None:
    assert rewritten("weights=null").values == ["++weights=null"]


def test_rewriting_twice_changes_nothing() -> None:
    """Processes of a multi-GPU run and of a sweep get rewritten commands."""
    first = rewritten(
        "dataset.path=/a 'b' (c), d=e\\", "+experiment/gen4='tiny.yaml'", "dataset=gen4", "hardware.gpus=[0,1]"
    )
    assert rewritten(*first.hydra).hydra == first.hydra


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_a_plus_works_whether_the_key_exists_or_not(sign: str) -> None:
    assert rewritten(f"{sign}batch_size.train=6").values == ["++batch_size.train=6"]


@pytest.mark.parametrize("option", ["tiny", "tiny.yaml", "'tiny.yaml'", '"tiny"'])
def test_experiments_with_and_without_suffix_and_quotes(option: str) -> None:
    result = rewritten(f"+experiment/gen4={option}")
    assert result.problems == []
    assert value_of(result.choices[0].removesuffix(".yaml")) == "tiny"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("+experiment/gen5=tiny", "did you mean experiment/gen4?"),
        ("+experiment/gen4=tini", "did you mean tiny?"),
        ("datset=gen4", "did you mean dataset?"),
        ("dataset=gen_4", "did you mean gen4?"),
        ("experiment/gen4=tiny", "+experiment/gen4=tiny"),
        ("training.max_stes=5", "did you mean training.max_steps?"),
        ("+trainning.learning_rat=5", "did you mean training.learning_rate?"),
        ("max_steps=5", "did you mean training.max_steps?"),
        ("seed=5", "did you mean reproduce.seed_everything?"),
        ("+trainning.lr=3", "allowed in training: precision, max_epochs"),
        ("checkpoint=x.ckpt", "weights=PATH"),
        ("hardware.gpus=0,1", "A list is written [0,1]"),
        ("hardware.gpus=[0", "cannot be read"),
        ("dataset.path=", "Is a shell variable empty?"),
        ("gen4", "is not key=value"),
        (" ", "nothing may follow the \\ at a line's end"),
    ],
)
def test_mistakes_are_explained(typed: str, said: str) -> None:
    (problem,) = rewritten(typed).problems
    assert said in problem.message
    assert "command line" in problem.origin


def test_sweeps_keep_comma_lists_except_in_paths() -> None:
    result = rewritten("training.learning_rate=0.1,0.2", "run_root=a,b", "dataset=gen1,gen4", sweep=True)
    assert result.values == ["++training.learning_rate=0.1,0.2", "++run_root='a,b'"]
    assert result.choices == ["dataset=gen1,gen4"]
    assert result.problems == []


def test_choices_are_those_on_disk(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text("# Mine\nname: mine\n")
    result = rewrite(["dataset=gen4"], key_tree(TrainConfig), SearchPath((tmp_path,)))
    assert "dataset=mine  Mine" in result.problems[0].message
