"""YOLOX's decoupled, anchor-free head: every cell of every map predicts one box, its objectness and its class."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int, Int64
from numpy import ndarray
from torch import Tensor, nn

from config.schema import HeadConfig, ModelConfig, PostprocessConfig
from models.anchors import HeadOutput, make_anchors
from models.layers.convolution import ConvBlock, spatial_conv
from models.loss import Loss, YoloxLoss, build_loss
from models.postprocess import decode, postprocess

PRIOR_PROBABILITY = 0.01  # what objectness and classes say before training (RetinaNet, arXiv:1708.02002)


class YoloxHead(nn.Module):
    """One branch for boxes and objectness, one for classes, on each level's map.

    A head owns its loss and its decoding; what `forward` gives, nobody else looks into.
    """

    def __init__(
        self,
        config: HeadConfig,
        num_classes: int,
        dims: tuple[int, ...],
        strides: tuple[int, ...],
        loss: Loss,
        thresholds: PostprocessConfig,
    ) -> None:
        super().__init__()
        self.strides, self.thresholds = strides, thresholds
        self._loss = loss
        hidden = int(256 * dims[-1] / 1024)  # YOLOX's width: 256 channels where the deepest stage has 1024

        def branch() -> nn.Sequential:
            return nn.Sequential(*(spatial_conv(hidden, hidden, 3, config.act, config.depthwise) for _ in range(2)))

        def predictor(channels: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(hidden, channels, 1) for _ in dims)

        self.stems = nn.ModuleList(ConvBlock(dim, hidden, 1, config.act) for dim in dims)
        self.class_branches = nn.ModuleList(branch() for _ in dims)
        self.box_branches = nn.ModuleList(branch() for _ in dims)
        self.class_predictors = predictor(num_classes)
        self.box_predictors = predictor(4)
        self.objectness_predictors = predictor(1)
        prior_logit = -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)
        for conv in (*self.class_predictors, *self.objectness_predictors):
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            nn.init.constant_(conv.bias, prior_logit)

    def forward(self, features: tuple[Float[Tensor, "k _ _ _"], ...]) -> HeadOutput:
        boxes, objectness, classes = [], [], []
        dtype = self.box_predictors[0].weight.dtype
        for level, feature in enumerate(features):
            x = self.stems[level](feature)
            box_features = self.box_branches[level](x)
            class_features = self.class_branches[level](x)
            # Half precision would round the predictions themselves: a width to 0.4 %, a logit of -5 to 0.03.
            with torch.autocast(x.device.type, enabled=False):
                box_features, class_features = (maps.to(dtype) for maps in (box_features, class_features))
                boxes.append(_flatten(self.box_predictors[level](box_features)))
                objectness.append(_flatten(self.objectness_predictors[level](box_features)))
                classes.append(_flatten(self.class_predictors[level](class_features)))
        return HeadOutput(
            box_offsets=torch.cat(boxes, dim=1),
            objectness_logits=torch.cat(objectness, dim=1).squeeze(2),
            class_logits=torch.cat(classes, dim=1),
            anchors=make_anchors([(f.shape[-2], f.shape[-1]) for f in features], self.strides, features[0].device),
        )

    @property
    def loss_names(self) -> tuple[str, ...]:
        return self._loss.names

    def loss(
        self, output: HeadOutput, boxes: Float[Tensor, "n 5"], box_image: Int64[Tensor, " n"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses of K images; `loss` is what is minimised, the others are its parts and figures to be logged.

        Args:
            boxes: class, centre x, centre y, width, height in pixels of the frame.
            box_image: 0..K-1, ascending.
        """
        # Distances in pixels and sums of logarithms do not survive half precision.
        with torch.autocast(boxes.device.type, enabled=False):
            return self._loss(output, boxes.float(), box_image)

    def weigh_classes(self, counts: Int[ndarray, " classes"]) -> Float[Tensor, " classes"]:
        """Set and return the weights that `model.loss.class_weight` gives to classes of so many training boxes."""
        assert isinstance(self._loss, YoloxLoss), "the config's checks refuse the setting beside another loss"
        return self._loss.weigh_classes(counts)

    @torch.no_grad()
    def detect(self, output: HeadOutput, thresholds: PostprocessConfig | None = None) -> list[Float[Tensor, "_ 7"]]:
        """Detections of each image: x1, y1, x2, y2 in pixels, objectness, class confidence, class id; best first.

        `thresholds`: others than those of the config.
        """
        used = thresholds or self.thresholds
        return postprocess(decode(output), used.confidence_threshold, used.nms_threshold)


HEADS = {"YoloX": YoloxHead}


def build_head(config: ModelConfig, num_classes: int) -> YoloxHead:
    """The head of `model.head.name`, with the loss of `model.loss.name`."""
    head, backbone = HEADS[config.head.name], config.backbone
    dims = tuple(backbone.stage_dims[stage - 1] for stage in config.fpn.in_stages)
    strides = tuple(backbone.strides[stage - 1] for stage in config.fpn.in_stages)
    return head(config.head, num_classes, dims, strides, build_loss(config.loss, num_classes), config.postprocess)


def _flatten(x: Float[Tensor, "k c h w"]) -> Float[Tensor, "k _ c"]:
    return x.flatten(2).transpose(1, 2).float()
