"""The LightningModule: plumbing between streams, detector and evaluation."""

from __future__ import annotations

from typing import Any, Self, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from config.freezing import frozen_modules
from config.schema import Config
from data.batch import SequenceBatch
from models.detector import Detector
from models.weights.search import LAST_STEP, WEIGHTS
from modules.accumulation import Accumulation
from modules.boundary import BoundaryCallback
from modules.evaluation.evaluator import Evaluation, EvaluationResult
from modules.evaluation.variants import Stored, Variants
from modules.hidden_state import HiddenState
from modules.optimizer import apply_settings, build_optimizer, rate_at, set_rate
from modules.run.processes import broadcast_buffers, gather_objects
from modules.stage import Stage

AVERAGE = "average"  # where the average is while a checkpoint is loaded


def callbacks_of(trainer: Trainer) -> list[Callback]:
    return trainer.callbacks  # type: ignore[attr-defined]  # set by a connector, where type checkers do not see it


def of_ours(module: LightningModule) -> DetectionModule:
    """Callbacks are handed some LightningModule; those of a run only ever meet ours."""
    return cast(DetectionModule, module)


class DetectionModule(LightningModule):
    """A recurrent detector under truncated back-propagation through time.

    Attributes:
        accumulation: how far the open optimizer step has come.
        train_state, eval_state: the lanes' hidden states between batches.
        result: what the last validation or test found; None before the first one.
    """

    def __init__(self, config: Config, stage: Stage | None = None) -> None:
        """`stage`: of a training that has several; `config` is then its own."""
        super().__init__()
        self.config = config
        self.stage = stage
        self.detector = Detector(
            config.model,
            num_classes=config.dataset.num_classes,
            partition_size=config.partition_size,
            activation_checkpointing=config.training.activation_checkpointing,
        )
        frozen = frozen_modules(config.training.freeze)
        self._frozen = [module for name, module in self.detector.named_modules() if name in frozen]
        for module in self._frozen:
            module.requires_grad_(False)
        self.train()
        self.accumulation = Accumulation(config.training.accumulate_grad_batches)
        self.train_state = HiddenState()
        self.eval_state = HiddenState()
        self.evaluation = Evaluation(config.dataset, config.evaluation, config.model.postprocess)
        self.result: EvaluationResult | None = None
        self.variants: Variants | None = None  # set where predictions under other protocols' thresholds are wanted, too
        self.stored: Stored = {}

    def train(self, mode: bool = True) -> Self:
        """Frozen parts stay in evaluation mode: their batch norms keep the statistics that their weights were trained
        with.
        """
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def on_before_batch_transfer(self, batch: SequenceBatch, dataloader_idx: int) -> SequenceBatch:
        if self.trainer.training and self.accumulation.between_steps:
            for callback in callbacks_of(self.trainer):
                if isinstance(callback, BoundaryCallback):
                    callback.on_step_boundary(self.trainer, self)
        return batch

    # --- training ----------------------------------------------------------------------------------------------------

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        state = self.train_state.enter(batch.is_first, batch.lane)
        features, state = self.detector.encode(batch.frames, state)
        self.train_state.leave(state, batch.lane)
        selected = self.detector.select(features, batch.labelled_frames)
        losses = self.detector.loss(selected, batch.boxes, batch.box_image)
        self._log_training(losses, batch, batch_idx)
        return self.accumulation.for_lightning(losses["loss"])

    def _log_training(self, losses: dict[str, Tensor], batch: SequenceBatch, batch_idx: int) -> None:
        frames = batch.frames.shape[0] * batch.num_lanes
        scalars = {f"train/{name}": value.detach() for name, value in losses.items() if name != "l1_loss"}
        scalars["train/labelled_share"] = torch.tensor(len(batch.labelled_frames) / frames)
        means = self.accumulation.add(scalars, batch_idx, self.trainer.num_training_batches)
        self.log_dict(means, batch_size=batch.num_lanes)

    @property
    def steps_of_stage(self) -> int:
        """How many steps have been done; since the stage began, if there are stages."""
        return self.trainer.global_step - (self.stage.first_step if self.stage is not None else 0)

    @property
    def learning_rate(self) -> float:
        """The rate of the coming or present step."""
        return rate_at(self.steps_of_stage, self.config.training)

    def configure_optimizers(self) -> Optimizer:
        return build_optimizer((p for p in self.parameters() if p.requires_grad), self.config.training)

    def on_train_start(self) -> None:
        for optimizer in self.trainer.optimizers:
            apply_settings(optimizer, self.config.training)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        set_rate(optimizer, self.learning_rate)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.accumulation.end_step()

    def on_train_epoch_start(self) -> None:
        if not self.accumulation.between_steps:
            rank_zero_warn("the epoch ended within an optimizer step: the gradients of its last batches are left out")
            self.accumulation.end_step()

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        # Lightning refuses to clip before a fused optimiser in mixed precision; the gradient guard has unscaled already
        if gradient_clip_val:
            torch.nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val, foreach=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.config.model_dump(mode="json")
        if self.stage is not None and self.stage.is_staged:
            checkpoint["stage"] = self.stage.state()
        checkpoint["hidden_state"] = gather_objects(self.train_state.state_dict())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if LAST_STEP in checkpoint:
            checkpoint[AVERAGE], checkpoint[WEIGHTS] = checkpoint[WEIGHTS], checkpoint[LAST_STEP]
        states = checkpoint["hidden_state"]
        if len(states) == self.trainer.world_size:
            own = self.detector.backbone.lane_state(self.config.input_hw)
            self.train_state.load_state_dict(states[self.global_rank], own)

    # --- validation and test -----------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        # each process has batch-norm statistics of its own batches; a checkpoint has those of the first
        broadcast_buffers(self)
        self.eval_state.reset()
        self.evaluation.reset()

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> dict[str, Any]:
        state = self.eval_state.enter(batch.is_first, batch.lane)
        features, state = self.detector.encode(batch.frames, state)
        self.eval_state.leave(state, batch.lane)
        selected = self.detector.select(features, batch.labelled_frames)
        thresholds = [None, *(self.variants.thresholds if self.variants else [])]
        detections, *others = (
            [found.cpu() for found in each] for each in self.detector.detect_under(thresholds, selected)
        )
        if detections:
            frames = self._labelled_frames(batch)
            self.evaluation.add(detections=detections, **frames)
            if self.variants:
                self.variants.add(others, **frames)
        return {"batch": batch, "detections": detections}

    def _labelled_frames(self, batch: SequenceBatch) -> dict[str, Any]:
        """What an evaluation is told of a batch besides the detections."""
        labelled = batch.labelled_frames
        lanes = (labelled % batch.num_lanes).tolist()
        event_count = batch.frames.flatten(0, 1)[labelled].flatten(1).sum(dim=1, dtype=torch.int64)
        return {
            "sequence_names": [batch.sequence_names[lane] for lane in lanes],
            "t_us": batch.t_us.flatten()[labelled.cpu()],
            "boxes": batch.boxes.cpu(),
            "box_image": batch.box_image.cpu(),
            "event_count": event_count.cpu(),
        }

    def on_validation_epoch_end(self) -> None:
        frames = self.evaluation.gather()
        if self.variants:
            stored = self.variants.gather(len(frames))
            self.stored = {self.config.model.postprocess: frames, **stored} if stored else {}
        self.eval_state.reset()
        prefix = "test" if self.trainer.testing else "val"
        self.result = self.evaluation.result(split=prefix)
        # every rank has gathered all predictions: the greatest of equal values is exact, their mean may not be
        metrics = {f"{prefix}/{name}": float(value) for name, value in self.result.metrics.items()}
        self.log_dict(metrics, batch_size=1, sync_dist=True, reduce_fx="max")

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end
