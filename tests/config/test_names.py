"""The key tree: what may be typed, also where a section is one of several."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from config.names import key_tree, unknown_key_message
from config.overrides import rewrite
from config.schema import Strict
from config.search_path import SearchPath


class Lstm(Strict):
    name: Literal["lstm"]
    kernel_size: int


class Gru(Strict):
    name: Literal["gru"]
    reset_bias: float


class Own(Strict):
    options: dict[str, Any] | None


class Root(Strict):
    cell: Annotated[Lstm | Gru, Field(discriminator="name")]
    spare: Gru | Own | None = None
    short: Literal["none"] | Lstm


TREE = key_tree(Root)


def test_keys_of_every_member_of_a_union_are_known() -> None:
    assert TREE.sections["cell"] == ("name", "kernel_size", "reset_bias")
    for key in ("cell.kernel_size", "cell.reset_bias", "spare.reset_bias", "spare.options.anything.deeper", "short"):
        assert TREE.knows(key)
    assert not TREE.knows("cell.options")
    assert "did you mean cell.reset_bias?" in unknown_key_message("cell.reset_bais", TREE)
    assert "allowed in spare: name, reset_bias, options" in unknown_key_message("spare.x", TREE)


def test_a_section_may_be_a_value_where_the_union_says_so() -> None:
    said = rewrite(["spare=null", "short=none", "short.kernel_size=3", "cell=lstm", "cell=null"], TREE, SearchPath())
    assert said.values == ["++spare=null", "++short=none", "++short.kernel_size=3"]
    assert [problem.message.split(";")[0] for problem in said.problems] == ["is a section"] * 2
