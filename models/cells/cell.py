"""What the backbone asks of a recurrent cell, and what it may do with a cell's state without knowing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

State = tuple[Shaped[Tensor, "_ ..."], ...]
"""One stage's state: tensors of the cell's own number, shapes and types, complex ones included; the first axis is the
lane. Zeros are the state at the start of a sequence. `()` is the state of a cell that remembers nothing."""


@runtime_checkable
class Cell(Protocol):
    """A module that takes L frames of B lanes through time, the last of a stage; its output is the stage's.

    It keeps nothing to itself between two calls: what it remembers is in the state. Lanes must not see each other.
    """

    def __call__(self, x: Float[Tensor, "l b h w c"], state: State | None) -> tuple[Float[Tensor, "l b h w c"], State]:
        """Go on from `state` (None: zeros); give the output for every frame and the state after the last."""
        ...


def split_lanes(state: State | None, num_lanes: int) -> list[State | None]:
    """The state of each lane by itself."""
    if state is None:
        return [None] * num_lanes
    return [tuple(part[lane : lane + 1] for part in state) for lane in range(num_lanes)]


def join_lanes(states: Sequence[State]) -> State:
    """The reverse of `split_lanes`."""
    return tuple(torch.cat(parts) for parts in zip(*states, strict=True))
