"""`sizes=`: several sizes of frames that one command makes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from config.errors import UserError
from config.loading import load_dataset_config
from config.schema import DatasetConfig
from scripts.parallel import split_key

HELP = "sizes=[[360,640],[540,960]] (height, width; 360x640,540x960 too)"
_OF_ONE = ("dataset.frame_hw", "dataset.downsample_by_factor_2")


def load_sized_dataset(overrides: Sequence[str]) -> tuple[DatasetConfig, list[tuple[int, int]]]:
    """The data set, and the sizes that `sizes=` names; its own one without that.

    Raises UserError for a size that the data set cannot have, as `dataset.frame_hw` does.
    """
    text, others = split_key("sizes", "", overrides)
    if len(others) == len(overrides):
        dataset = load_dataset_config(overrides)
        return dataset, [dataset.loaded_hw]
    for override in others:
        if (key := override.lstrip("+").partition("=")[0]) in _OF_ONE:
            raise UserError(f"sizes= and {key}= both say how large frames are. Leave {key} out")
    sizes = _parsed(text)
    datasets = [load_dataset_config([*others, "dataset.frame_hw=[{},{}]".format(*size)]) for size in sizes]
    return datasets[0], sizes


def _parsed(text: str) -> list[tuple[int, int]]:
    size = r"\[?(\d+)[x,](\d+)\]?"
    plain = re.sub(r"\s", "", text)
    outer = plain[1:-1] if plain.startswith("[") and plain.endswith("]") and not re.fullmatch(size, plain) else plain
    if not re.fullmatch(f"{size}(,{size})*", outer):
        raise UserError(f"sizes={text}: give height and width of each, such as sizes=[[360,640],[540,960]]")
    return list(dict.fromkeys((int(height), int(width)) for height, width in re.findall(size, outer)))
