"""Weights in whatever people wrap them in."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from config.errors import UserError
from models.weights.file import read_file
from models.weights.search import choose
from tests.network import golden_weights, their_weights

PATH = Path("some.ckpt")
OWN = golden_weights()


def theirs(prefix: str = "", change: float = 0.0) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value + change for key, value in their_weights().items()}


WRAPPED: dict[str, Any] = {
    "state_dict.module.mdl": lambda: {"state_dict": theirs("module.mdl."), "epoch": 3},
    "state_dict.model": lambda: {"state_dict": theirs("model.")},
    "model": lambda: {"model": theirs(), "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
    "model_state_dict": lambda: {"model_state_dict": OrderedDict(theirs())},
    "ema_state_dict": lambda: {"ema_state_dict": theirs()},
    "ema_model": lambda: theirs("ema_model."),
    "a.b._forward_module": lambda: {"a": {"b": theirs("_forward_module.")}},
    ".": lambda: (
        {"backbone": {k[9:]: v for k, v in theirs().items() if k.startswith("backbone.")}}
        | {k: v for k, v in theirs().items() if not k.startswith("backbone.")}
    ),
}


@pytest.mark.parametrize("key", WRAPPED)
def test_weights_are_found_by_their_names(key: str) -> None:
    found, note = choose(WRAPPED[key](), PATH, OWN, None)
    assert (found.key, note) == (key, None)
    assert found.weights.keys() == OWN.keys()
    assert all(torch.equal(found.weights[name], OWN[name]) for name in OWN)


def test_of_several_sets_the_one_asked_for_is_taken_and_without_a_word_they_are_listed() -> None:
    both = {"state_dict": theirs("mdl.") | theirs("ema_model.", change=1.0)}
    with pytest.raises(UserError, match=r"state_dict\.mdl \(\d+ tensors\), state_dict\.ema_model .*weights_key=state"):
        choose(both, PATH, OWN, None)
    for key in ("state_dict.ema_model", "ema_model"):
        found, _ = choose(both, PATH, OWN, key)
        assert torch.equal(found.weights["fpn.reduce4.conv.weight"], OWN["fpn.reduce4.conv.weight"] + 1)
    with pytest.raises(UserError, match=r"no set of weights with weights_key=ema\. There are state_dict\.mdl"):
        choose(both, PATH, OWN, "ema")
    other_size = {name: tensor[None] for name, tensor in theirs("teacher.").items()}
    found, note = choose({**theirs("student."), **other_size}, PATH, OWN, None)
    assert found.key == "student"
    assert note is not None
    assert note.endswith("student is taken, not teacher")


def test_numpy_scalars_and_paths_are_data(tmp_path: Path) -> None:
    numbers = [np.float64(0.25), np.int64(-3), np.float32(1.5), np.bool_(True), np.uint8(7)]
    torch.save({"state_dict": OWN, "best": numbers, "folder": tmp_path}, tmp_path / "a.ckpt")
    content = read_file(tmp_path / "a.ckpt")
    assert content["best"] == [0.25, -3, 1.5, True, 7]
    assert content["folder"] == PurePosixPath(tmp_path)
    torch.save({"state_dict": OWN, "call": np.frombuffer}, tmp_path / "b.ckpt")
    with pytest.raises(UserError, match="trust_checkpoint=true") as caught:
        read_file(tmp_path / "b.ckpt")
    assert not {"\n", "\x1b"} & set(str(caught.value))


def test_weights_with_nan_are_refused(tmp_path: Path) -> None:
    from models.weights.pretrained import load_weights

    torch.save({**OWN, "fpn.reduce4.conv.weight": OWN["fpn.reduce4.conv.weight"] * float("nan")}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"1 of \d+ weights hold NaN or infinity \(fpn\.reduce4\.conv\.weight first\)"):
        load_weights(tmp_path / "a.ckpt", OWN)
