"""The whole network: recurrent backbone, feature pyramid, head, loss, detections. Plain torch, any loop can use it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Num
from torch import Tensor, nn

from config.schema import CompileConfig, ModelConfig
from models.backbone import RecurrentBackbone
from models.cells.cell import State
from models.fpn import Pafpn
from models.head import HeadOutput, YoloxHead
from models.loss import detection_loss
from models.postprocess import decode, postprocess

STRIDES = (8, 16, 32)  # of stages 2, 3, 4
DEEPEST_STRIDE = 32

Features = tuple[Float[Tensor, "k c2 h2 w2"], Float[Tensor, "k c3 h3 w3"], Float[Tensor, "k c4 h4 w4"]]
"""Maps of K images from stages 2, 3, 4."""


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
        self.postprocess_config = config.postprocess
        self.padding_hw = (DEEPEST_STRIDE * partition_size[0], DEEPEST_STRIDE * partition_size[1])
        dims = config.backbone.stage_dims[1:]
        self.backbone = RecurrentBackbone(config.backbone, partition_size, activation_checkpointing)
        self.fpn = Pafpn(config.fpn, dims)
        self.head = YoloxHead(config.head, num_classes, dims, STRIDES)
        _compile(self.backbone, config.backbone.compile)
        _compile(self.fpn, config.fpn.compile)
        _compile(self.head, config.head.compile)

    def encode(
        self, frames: Num[Tensor, "l b c h w"], state: list[State] | None
    ) -> tuple[tuple[Float[Tensor, "l b c_k h_k w_k"], ...], list[State]]:
        """Feature maps of stages 2, 3, 4 for L frames (uint8 or float) of B lanes, and the state after the last.

        `state` is what the call for the frames before gave, None at the start of all lanes; zero rows reset a lane.
        """
        features, state = self.backbone(self._pad(frames), state)
        return tuple(features[1:]), state

    def select(
        self, features: tuple[Float[Tensor, "l b c_k h_k w_k"], ...], labelled_frames: Int64[Tensor, " k"]
    ) -> Features:
        """Maps of the frames l * B + b listed in `labelled_frames`, in that order."""
        # Channels stay last in memory, as the backbone leaves them: convolutions are faster so.
        channels_last = (maps.movedim(2, -1).flatten(0, 1) for maps in features)
        return tuple(maps.index_select(0, labelled_frames).movedim(-1, 1) for maps in channels_last)

    def loss(
        self, selected: Features, boxes: Float[Tensor, "n 5"], box_image: Int64[Tensor, " n"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses of K labelled images: see `loss.detection_loss`. All zero, and differentiable, when K is 0.

        Args:
            boxes: class, centre x, centre y, width, height in pixels of the frame.
            box_image: position in `selected` of the image that each box belongs to.
        """
        if selected[0].shape[0] == 0:
            return self._no_loss(selected)
        predictions = self.predict(selected)
        # Distances in pixels and sums of logarithms do not survive half precision.
        with torch.autocast(boxes.device.type, enabled=False):
            return detection_loss(predictions, boxes.float(), box_image)

    @torch.no_grad()
    def detect(self, selected: Features) -> list[Float[Tensor, "m 7"]]:
        """Detections of each image: x1, y1, x2, y2 in pixels, objectness, class confidence, class id; best first."""
        if selected[0].shape[0] == 0:
            return []
        thresholds = self.postprocess_config
        decoded = decode(self.predict(selected))
        return postprocess(decoded, thresholds.confidence_threshold, thresholds.nms_threshold)

    def predict(self, selected: Features) -> HeadOutput:
        """Undecoded predictions of all anchors."""
        return self.head(self.fpn(selected))

    def _pad(self, frames: Num[Tensor, "l b c h w"]) -> Num[Tensor, "l b c h_padded w_padded"]:
        """Empty rows below and columns right of the frame, so that every stage divides into whole windows."""
        height, width = frames.shape[-2:]
        below, right = -height % self.padding_hw[0], -width % self.padding_hw[1]
        return F.pad(frames, (0, right, 0, below))

    def _no_loss(self, selected: Features) -> dict[str, Float[Tensor, ""]]:
        """Zero that depends on every parameter: DistributedDataParallel waits for all gradients on all ranks."""
        parameters = (*self.fpn.parameters(), *self.head.parameters())
        zero = sum(tensor.float().sum() * 0 for tensor in (*selected, *parameters))
        names = ("loss", "iou_loss", "conf_loss", "cls_loss", "l1_loss", "num_fg")
        return {name: zero if name == "loss" else zero.detach() for name in names}


def _compile(module: nn.Module, config: CompileConfig) -> None:
    if config.enable:
        module.compile(mode=config.args.mode)
