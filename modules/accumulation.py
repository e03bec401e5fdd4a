"""Gradient accumulation: how far the open optimizer step has come."""

from __future__ import annotations

from torch import Tensor


class Accumulation:
    """Counts the batches whose gradients one optimizer step takes the mean of.

    Lightning steps after every `num_batches` batches of an epoch and after its last one, so that the last step of an
    epoch may have fewer, as has the first one of a process that resumes with another number.
    """

    def __init__(self, num_batches: int) -> None:
        self.num_batches = num_batches
        self._done = 0  # batches of the open step
        self._length = num_batches  # batches that it will have
        self._sums: dict[str, Tensor] = {}

    @property
    def between_steps(self) -> bool:
        """Whether all gradients computed so far have been applied."""
        return self._done == 0

    def add(self, scalars: dict[str, Tensor], batch_idx: int, batches_per_epoch: int | float) -> dict[str, Tensor]:
        """Count a batch in, the `batch_idx`-th of its epoch; return the means over the open step so far."""
        if self.num_batches == 1:
            self._done = 1
            return scalars
        if self.between_steps:
            end = min((batch_idx // self.num_batches + 1) * self.num_batches, int(batches_per_epoch))
            self._length = max(end - batch_idx, 1)
            self._sums = {}
        self._done += 1
        self._sums = {name: self._sums[name] + x if name in self._sums else x for name, x in scalars.items()}
        return {name: total / self._done for name, total in self._sums.items()}

    def for_lightning(self, loss: Tensor) -> Tensor:
        """Lightning divides by `num_batches`, also where the step has fewer."""
        return loss if self._length == self.num_batches else loss * (self.num_batches / self._length)

    def end_step(self) -> None:
        self._done = 0
