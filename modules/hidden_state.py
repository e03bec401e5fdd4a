"""The lanes' states between batches: the one place where they live."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int64, Shaped
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from models.cells.cell import State


class HiddenState:
    """Keeps one state per lane and stage from the end of a batch to the start of the next.

    A batch may hold fewer lanes than the one before it (evaluation, lanes that have run out): rows are found by lane
    number, never by position.
    """

    def __init__(self) -> None:
        self._stages: list[State] | None = None  # rows are lanes 0, 1, 2, ...

    def enter(self, is_first: Bool[Tensor, " b"], lane: Int64[Tensor, " b"]) -> list[State] | None:
        """Return the states of the batch's rows, zero where a sequence starts; None before the first batch."""
        if self._stages is None or not self._fits(lane):
            return None
        self._stages = _map(lambda part: part.to(is_first.device), self._stages)  # restored: on the host
        keep = ~is_first

        def rows(part: Shaped[Tensor, "lanes *shape"]) -> Shaped[Tensor, "b *shape"]:
            chosen = part if len(lane) == len(part) else part[lane]
            # where, not a product: a state that is no longer finite must not survive its reset
            zero = torch.zeros((), dtype=part.dtype, device=part.device)
            return torch.where(keep.view(-1, *[1] * (part.ndim - 1)), chosen, zero)

        return _map(rows, self._stages)

    def leave(self, stages: list[State], lane: Int64[Tensor, " b"]) -> None:
        """Keep the values, cut the graph: gradients never cross a batch."""
        detached = _map(Tensor.detach, stages)
        if self._stages is None or not self._fits(lane) or len(lane) == self.num_lanes:
            self._stages = detached
            return
        self._stages = _map(Tensor.clone, self._stages)  # a cell may still hold what it gave
        for kept, stage in zip(self._stages, detached, strict=True):
            for kept_part, part in zip(kept, stage, strict=True):
                kept_part[lane] = part

    def reset(self) -> None:
        """Forget all lanes: the next batch starts from zero."""
        self._stages = None

    def reset_where(self, flag: Bool[Tensor, ""]) -> None:
        """Zero all lanes if a flag on the device is set, without asking the device for its value."""
        if self._stages is not None:
            self._stages = _map(lambda part: part.masked_fill(flag, 0), self._stages)

    def state_dict(self) -> list[State] | None:
        """On the host, in memory of its own: of a view, all that it looks into would go into the checkpoint."""
        return None if self._stages is None else _map(lambda part: part.cpu().clone(), self._stages)

    def load_state_dict(self, stages: list[State] | None, like: list[State]) -> None:
        """Take states that are shaped as one lane's in `like`; others cannot go on, and all lanes start anew."""
        reason = None if stages is None else _why_not(stages, like)
        self._stages = stages if reason is None else None
        if reason is not None:
            rank_zero_warn(f"the checkpoint's hidden states {reason}: all lanes start anew, as new sequences do")

    @property
    def num_lanes(self) -> int:
        """0 also for cells without a state: there is nothing to find again."""
        return 0 if self._stages is None else next((len(part) for stage in self._stages for part in stage), 0)

    def _fits(self, lane: Int64[Tensor, " b"]) -> bool:
        return len(lane) <= self.num_lanes


def _why_not(stages: list[State], like: list[State]) -> str | None:
    """What keeps states from going on as those of another resolution or of a fault do."""
    parts, own = ([part for stage in states for part in stage] for states in (stages, like))
    for part, expected in zip(parts, own, strict=True):
        if part.shape[1:] != expected.shape[1:]:
            return f"are {list(part.shape[1:])} per lane, and here they are {list(expected.shape[1:])}"
        if part.shape[:1] != parts[0].shape[:1]:
            return "differ in their number of lanes"
        if not part.isfinite().all():
            return "are not finite"
    return None


def _map(change: Callable[[Tensor], Tensor], stages: list[State]) -> list[State]:
    return [tuple(change(part) for part in stage) for stage in stages]
