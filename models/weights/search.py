"""Finding a detector's weights in a file, whatever they are wrapped in: by the names of parameters, not by prefixes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from config.errors import UserError
from models.weights.published_names import in_our_names

# Where a name within the detector begins. A backbone may have been saved by itself, without its own name.
BEGIN = re.compile(r"(?:^|(?<=\.))(?:(?:backbone\.)?stages\.\d+|fpn|yolox_head|head)\.")
OURS = re.compile(
    r"backbone\.stages\.\d+\.(downsample\.conv|blocks\.\d+\.(window|grid)|lstm|s5|own)\."
    r"|fpn\.(reduce|top_down|bottom_up|downsample)\d\.|head\.(stems|\w+_branches|\w+_predictors)\."
)
WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
TOP = "."  # the key of weights that lie in nothing
# Of checkpoints of ours and of Lightning's WeightAveraging: what is taken, and beside an average the last step's
WEIGHTS, LAST_STEP = "state_dict", "current_model_state"
MAX_DEPTH = 8


@dataclass(frozen=True)
class Candidate:
    """One set of weights in a file.

    Attributes:
        key: where it lies: keys of dictionaries and prefix of the names, joined by dots.
        published: by the names in the file, from the detector's part on.
        weights: by our names.
    """

    key: str
    published: dict[str, Tensor]
    weights: dict[str, Tensor]


def find_candidates(content: Mapping[Any, Any]) -> list[Candidate]:
    """All sets of weights with parts of a detector like ours, in the file's order."""
    groups: dict[str, dict[str, Tensor]] = {}
    for full_name, tensor in _flatten(content, "", set(), 0):
        name = WRAPPERS.sub("", full_name)
        begin = BEGIN.search(name)
        if begin is not None:
            inside = name[begin.start() :]
            inside = f"backbone.{inside}" if inside.startswith("stages.") else inside
            groups.setdefault(name[: begin.start()], {})[inside] = tensor
    found = [Candidate(prefix.rstrip(".") or TOP, group, in_our_names(group)) for prefix, group in groups.items()]
    return [candidate for candidate in found if any(OURS.match(name) for name in candidate.weights)]


def choose(
    content: Mapping[Any, Any], path: Path, own: Mapping[str, Tensor], wanted: str | None
) -> tuple[Candidate, str | None]:
    """The set of weights to take, and a line about the choice where there was one.

    Args:
        own: the detector's state, whose names and shapes decide where `wanted` does not.
        wanted: the key of a set, or a part of it that tells it from the others (`weights_key=`).

    Raises:
        UserError: no weights of such a detector; several, and nothing tells which; no set of that key.
    """
    candidates = find_candidates(content)
    if not candidates:
        names = ", ".join(name for name, _ in list(_flatten(content, "", set(), 0))[:3]) or "no tensors"
        raise UserError(f"{path} holds no weights of an RVT detector (found: {names}). Give another checkpoint")
    if wanted is not None:
        return _of_key(candidates, path, wanted), None
    if len(candidates) == 1:
        return candidates[0], None
    averaged = next((each for each in candidates if each.key.split(".")[0] == WEIGHTS), None)
    if averaged is not None and LAST_STEP in content:
        return averaged, f"{path}: the averaged weights are taken; weights_key={LAST_STEP} takes those of its last step"
    fitting = [candidate for candidate in candidates if _fits(candidate, own)]
    if fitting and all(_equal(fitting[0], other) for other in fitting[1:]):
        others = ", ".join(c.key for c in candidates if c is not fitting[0])
        return fitting[0], f"{path} holds several sets of weights: {fitting[0].key} is taken, not {others}"
    raise UserError(
        f"{path} holds several sets of weights: {_listing(candidates)}. "
        f"Choose one: weights_key={(fitting or candidates)[0].key}"
    )


def _of_key(candidates: Sequence[Candidate], path: Path, wanted: str) -> Candidate:
    exact = [candidate for candidate in candidates if candidate.key == wanted]
    found = exact or [candidate for candidate in candidates if f".{wanted}." in f".{candidate.key}."]
    if len(found) != 1:
        what = "several sets" if found else "no set"
        raise UserError(f"{path} has {what} of weights with weights_key={wanted}. There are {_listing(candidates)}")
    return found[0]


def _listing(candidates: Sequence[Candidate]) -> str:
    return ", ".join(f"{candidate.key} ({len(candidate.weights)} tensors)" for candidate in candidates)


def _fits(candidate: Candidate, own: Mapping[str, Tensor]) -> bool:
    weights = candidate.weights
    return weights.keys() == own.keys() and all(weights[name].shape == own[name].shape for name in own)


def _equal(one: Candidate, other: Candidate) -> bool:
    return all(one.weights[name].equal(other.weights[name]) for name in one.weights)


def _flatten(value: object, name: str, seen: set[int], depth: int) -> list[tuple[str, Tensor]]:
    """Tensors with the keys that lead to them; a dictionary that is there twice counts once."""
    if isinstance(value, Tensor):
        return [(name, value)]
    if isinstance(value, nn.Module):  # only ever in a file that is trusted
        value = value.state_dict()
    if not isinstance(value, dict) or id(value) in seen or depth > MAX_DEPTH:
        return []
    seen.add(id(value))
    found = []
    for key, part in value.items():
        found += _flatten(part, f"{name}.{key}" if name else str(key), seen, depth + 1)
    return found
