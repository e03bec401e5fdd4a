"""The lanes' LSTM states between batches: the one place where they live."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

LstmState = tuple[Tensor, Tensor]  # hidden state and cell state of one stage, each [B, C, h, w]


class HiddenState:
    """Keeps one state per lane and stage from the end of a batch to the start of the next.

    A batch may hold fewer lanes than the one before it (evaluation, lanes that have run out): rows are found by lane
    number, never by position.
    """

    def __init__(self) -> None:
        self._stages: list[LstmState] | None = None  # rows are lanes 0, 1, 2, ...

    def enter(self, is_first: Bool[Tensor, " b"], lane: Int64[Tensor, " b"]) -> list[LstmState] | None:
        """Return the states of the batch's rows, zero where a sequence starts; None before the first batch."""
        if self._stages is None or not self._fits(lane):
            return None
        device = is_first.device
        self._stages = [(hidden.to(device), cell.to(device)) for hidden, cell in self._stages]  # restored: on the host
        keep = ~is_first

        def rows(state: Tensor) -> Tensor:
            chosen = state if len(lane) == len(state) else state[lane]
            # where, not a product: a state that is no longer finite must not survive its reset
            return torch.where(keep.view(-1, 1, 1, 1), chosen, torch.zeros((), dtype=state.dtype, device=state.device))

        return [(rows(hidden), rows(cell)) for hidden, cell in self._stages]

    def leave(self, stages: list[LstmState], lane: Int64[Tensor, " b"]) -> None:
        """Keep the values, cut the graph: gradients never cross a batch."""
        detached = [(hidden.detach(), cell.detach()) for hidden, cell in stages]
        if self._stages is None or len(lane) == len(self._stages[0][0]) or not self._fits(lane):
            self._stages = detached
            return
        for (kept_hidden, kept_cell), (hidden, cell) in zip(self._stages, detached, strict=True):
            kept_hidden[lane] = hidden
            kept_cell[lane] = cell

    def reset(self) -> None:
        """Forget all lanes: the next batch starts from zero."""
        self._stages = None

    def reset_where(self, flag: Bool[Tensor, ""]) -> None:
        """Zero all lanes if a flag on the device is set, without asking the device for its value."""
        if self._stages is not None:
            self._stages = [(hidden.masked_fill(flag, 0), cell.masked_fill(flag, 0)) for hidden, cell in self._stages]

    def state_dict(self) -> list[LstmState] | None:
        return None if self._stages is None else [(hidden.cpu(), cell.cpu()) for hidden, cell in self._stages]

    def load_state_dict(self, stages: list[LstmState] | None) -> None:
        self._stages = stages

    @property
    def num_lanes(self) -> int:
        return 0 if self._stages is None else len(self._stages[0][0])

    def _fits(self, lane: Int64[Tensor, " b"]) -> bool:
        return len(lane) <= self.num_lanes
