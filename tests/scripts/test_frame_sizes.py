"""Sizes as people type them."""

import pytest

from config.errors import UserError
from scripts.frame_sizes import load_sized_dataset

GEN4 = "dataset=gen4"
TWO = [(360, 640), (540, 960)]


@pytest.mark.parametrize(
    "text", ["[[360,640],[540,960]]", "360x640,540x960", "[360x640, 540x960]", "[360,640],[540,960],[360,640]"]
)
def test_sizes_are_height_and_width(text: str) -> None:
    dataset, sizes = load_sized_dataset([GEN4, f"sizes={text}"])
    assert sizes == TWO
    assert dataset.loaded_hw == TWO[0]


def test_one_size_and_none() -> None:
    assert load_sized_dataset([GEN4, "sizes=[540,960]"])[1] == [(540, 960)]
    assert load_sized_dataset([GEN4])[1] == [(360, 640)]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sizes="], "give height and width"),
        (["sizes=[]"], "give height and width"),
        (["sizes=small"], "give height and width"),
        (["sizes=[360,640,540]"], "give height and width"),
        (["sizes=640x360"], r"\[360, 640\] does not"),
        (["sizes=720x1280,1440x2560"], "more than the sensor"),
        (["sizes=[540,960]", "dataset.frame_hw=[360,640]"], "Leave dataset.frame_hw out"),
        (["sizes=[540,960]", "dataset.downsample_by_factor_2=false"], "Leave dataset.downsample_by_factor_2 out"),
    ],
)
def test_what_cannot_be_meant_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_sized_dataset([GEN4, *overrides])
