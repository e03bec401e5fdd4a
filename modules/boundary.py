"""The moment between two training steps."""

from __future__ import annotations

from pytorch_lightning import Callback, LightningModule, Trainer


class BoundaryCallback(Callback):
    """A callback that acts between two training steps: a batch has been fetched, the step has not begun.

    Lightning's own hooks come when its counters already include the coming step, or not yet a validation that is due; a
    checkpoint of that moment resumes one step off, or without the validation. `DetectionModule` calls this one.
    """

    def on_step_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise NotImplementedError
