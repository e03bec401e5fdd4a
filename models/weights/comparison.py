"""A file's weights against a detector's: what fits, what lacks, what the file has beyond, by parts of the network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from models.weights.description import CLASSES, describe, differing_settings, part_of

CLASS_PREDICTORS = "head.class_predictors."
LEVEL = re.compile(r"^(head\.\w+)\.(\d+)\.")
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Comparison:
    """Names of parameters: `new` are the detector's that the file cannot give, `left` are the file's beyond."""

    theirs: Weights
    own: Weights
    loaded: dict[str, Tensor]
    new: list[str]
    left: list[str]

    @property
    def fits(self) -> bool:
        return not self.new and not self.left

    @property
    def class_counts(self) -> tuple[object, object]:
        return describe(self.theirs).get(CLASSES, "no"), describe(self.own).get(CLASSES, "no")

    @property
    def only_classes_differ(self) -> bool:
        theirs, ours = self.class_counts
        return theirs != ours and "no" not in (theirs, ours) and self.without(CLASS_PREDICTORS).fits

    @property
    def settings(self) -> list[str]:
        """As they would have to be typed for the file."""
        theirs, ours = self.class_counts
        data = [] if theirs in ("no", ours) else [f"a dataset with {theirs} classes (now {ours})"]
        return [*differing_settings(self.theirs, self.own), *data]

    def without(self, prefix: str) -> Comparison:
        """Of the other parameters only."""
        theirs, own = (
            {name: value for name, value in weights.items() if not name.startswith(prefix)}
            for weights in (self.theirs, self.own)
        )
        return compare(theirs, own)

    def dropping(self, prefix: str) -> Comparison:
        """With these parameters left in the file."""
        dropped = [name for name in self.loaded if name.startswith(prefix)]
        loaded = {name: value for name, value in self.loaded.items() if name not in dropped}
        return replace(self, loaded=loaded, new=[*self.new, *dropped], left=[*self.left, *dropped])

    def by_part(self) -> str:
        """What differs, by part of the network."""
        loaded, new, left = (Counter(map(part_of, names)) for names in (self.loaded, self.new, self.left))
        told = []
        for part in _parts([*self.new, *self.left]):
            if loaded[part] == 0 and left[part] == 0:
                told.append(f"{part} (not in the file)")
            else:
                told.append(f"{part} ({loaded[part]} tensors fit, {left[part]} of the file's do not, {new[part]} lack)")
        return f"It differs in {', '.join(told)}"

    def table(self, path: Path) -> list[str]:
        """Numbers of tensors by part of the network."""
        columns = ("loaded", "left out of the file", "newly initialised")
        counts = [Counter(map(part_of, names)) for names in (self.loaded, self.left, self.new)]
        parts = _parts([*self.own, *self.left])
        width = max(map(len, parts))
        lines = [f"{path}: tensors loaded by part of the network", f"{'':{width}}  {'  '.join(columns)}"]
        for part in parts:
            cells = (f"{count[part]:>{len(column)}}" for count, column in zip(counts, columns, strict=True))
            lines.append(f"{part:{width}}  {'  '.join(cells)}")
        return lines


def compare(theirs: Weights, own: Weights, aligned: bool = False) -> Comparison:
    """`aligned`: where the two have other numbers of scales, the head's levels meet by the stage that they look at."""
    named = _align_levels(theirs, own) if aligned else theirs
    loaded = {name: value for name, value in named.items() if name in own and _alike(value, own[name])}
    return Comparison(
        theirs,
        own,
        loaded,
        new=[name for name in own if name not in loaded],
        left=[name for name in named if name not in loaded],
    )


def _alike(value: Tensor, own: Tensor) -> bool:
    return value.shape == own.shape and (value.is_floating_point(), value.is_complex()) == (
        own.is_floating_point(),
        own.is_complex(),
    )


def _align_levels(theirs: Weights, own: Weights) -> Weights:
    """The deepest level is always that of stage 4."""
    shift = _num_levels(own) - _num_levels(theirs)
    if shift == 0 or _num_levels(theirs) == 0:
        return theirs

    def moved(name: str) -> str:
        return LEVEL.sub(lambda match: f"{match[1]}.{int(match[2]) + shift}.", name)

    return {moved(name): value for name, value in theirs.items()}


def _num_levels(names: Iterable[str]) -> int:
    return len({match[2] for name in names if (match := LEVEL.match(name))})


def _parts(names: Iterable[str]) -> list[str]:
    return sorted(set(map(part_of, names)))
