"""The whole network: recurrent backbone, feature pyramid, head, loss, detections. Plain torch, any loop can use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Num
from torch import Tensor, nn

from config.schema import CompileConfig, ModelConfig, PostprocessConfig
from models.backbone import RecurrentBackbone
from models.cells.cell import State
from models.fpn import Pafpn
from models.head import build_head

Features = tuple[Float[Tensor, "k _ _ _"], ...]
"""Maps of K images from the stages that the feature pyramid takes, model.fpn.in_stages."""


class Detector(nn.Module):
    """Recurrent vision transformer for detection (RVT, CVPR 2023).

    Training: `encode` a chunk, `select` its labelled frames, `loss`. Inference: `encode`, `select`, `detect`.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_classes: int,
        partition_size: tuple[int, int],
        activation_checkpointing: bool = False,
    ) -> None:
        """`partition_size`: height and width of an attention window in cells, the same at every stage.

        `activation_checkpointing` computes the backbone's activations again in the backward pass instead of keeping
        them: a fifth of the memory for half as much time again.
        """
        super().__init__()
        unit_px = config.backbone.unit_px
        self.padding_hw = (unit_px * partition_size[0], unit_px * partition_size[1])
        self._in_stages = config.fpn.in_stages
        self.backbone = RecurrentBackbone(config.backbone, partition_size, activation_checkpointing)
        self.fpn = Pafpn(config.fpn, config.backbone.stage_dims)
        self.head = build_head(config, num_classes)
        _compile(self.backbone, config.backbone.compile)
        _compile(self.fpn, config.fpn.compile)
        _compile(self.head, config.head.compile)

    def encode(
        self, frames: Num[Tensor, "l b c h w"], state: list[State] | None
    ) -> tuple[tuple[Float[Tensor, "l b _ _ _"], ...], list[State]]:
        """Feature maps of the pyramid's stages for L frames (uint8 or float) of B lanes, and the state after the last.

        `state` is what the call for the frames before gave, None at the start of all lanes; zero rows reset a lane.
        """
        features, state = self.backbone(self._pad(frames), state)
        return tuple(features[stage - 1] for stage in self._in_stages), state

    def select(
        self, features: tuple[Float[Tensor, "l b _ _ _"], ...], labelled_frames: Int64[Tensor, " k"]
    ) -> Features:
        """Maps of the frames l * B + b listed in `labelled_frames`, in that order."""
        # Channels stay last in memory, as the backbone leaves them: convolutions are faster so.
        channels_last = (maps.movedim(2, -1).flatten(0, 1) for maps in features)
        return tuple(maps.index_select(0, labelled_frames).movedim(-1, 1) for maps in channels_last)

    def loss(
        self, selected: Features, boxes: Float[Tensor, "n 5"], box_image: Int64[Tensor, " n"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses of K labelled images: see the head's loss. All zero, and differentiable, when K is 0.

        Args:
            boxes: class, centre x, centre y, width, height in pixels of the frame.
            box_image: position in `selected` of the image that each box belongs to.
        """
        if selected[0].shape[0] == 0:
            return self._no_loss(selected)
        return self.head.loss(self.predict(selected), boxes, box_image)

    def detect(self, selected: Features) -> list[Float[Tensor, "_ 7"]]:
        """Detections of each image: x1, y1, x2, y2 in pixels, objectness, class confidence, class id; best first."""
        return self.detect_under([None], selected)[0]

    @torch.no_grad()
    def detect_under(
        self, thresholds: Sequence[PostprocessConfig | None], selected: Features
    ) -> list[list[Float[Tensor, "_ 7"]]]:
        """Detections under each of several thresholds (None: the config's), of one pass through the network."""
        if selected[0].shape[0] == 0:
            return [[] for _ in thresholds]
        output = self.predict(selected)
        return [self.head.detect(output, each) for each in thresholds]

    def predict(self, selected: Features) -> Any:
        """The head's output, undecoded; only the head knows what it is."""
        return self.head(self.fpn(selected))

    def _pad(self, frames: Num[Tensor, "l b c h w"]) -> Num[Tensor, "l b c h_padded w_padded"]:
        """Empty rows below and columns right of the frame, so that every stage divides into whole windows."""
        height, width = frames.shape[-2:]
        below, right = -height % self.padding_hw[0], -width % self.padding_hw[1]
        return F.pad(frames, (0, right, 0, below))

    def _no_loss(self, selected: Features) -> dict[str, Float[Tensor, ""]]:
        """Zero that depends on every parameter: DistributedDataParallel waits for all gradients on all ranks."""
        parameters = (*self.fpn.parameters(), *self.head.parameters())
        zero = torch.stack([tensor.float().sum() * 0 for tensor in (*selected, *parameters)]).sum()
        return {name: zero if name == "loss" else zero.detach() for name in self.head.loss_names}


def _compile(module: nn.Module, config: CompileConfig) -> None:
    if config.enable:
        module.compile(mode=config.args.mode)
