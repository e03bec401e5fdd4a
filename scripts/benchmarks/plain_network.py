"""The plain way of a step: frame by frame through all stages, anchors assigned image by image, NMS in every step.

It runs our weights, and gives the same losses; what `replace_layers` leaves of the layers is ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from data.boxes.overlap import paired_iou
from models.anchors import HeadOutput, decode_boxes
from models.assignment import CENTRE_RADIUS, IOU_WEIGHT, MAX_ANCHORS_PER_BOX, OUTSIDE_COST
from models.backbone import Stage
from models.cells.lstm import Lstm2d, LstmState
from models.detector import Detector, Features
from models.layers.attention import AttentionBlock, LayerScale
from models.layers.convolution import ConvBlock
from models.layers.linear import MapLinear


class PlainConvBlock(ConvBlock):
    def forward(self, x: Float[Tensor, "n c_in h_in w_in"]) -> Float[Tensor, "n c h w"]:
        return self.act(self.bn(self.conv(x)))


class PlainLinear(MapLinear):
    def forward(
        self, maps: Float[Tensor, "*cells c_in"], scale: Float[Tensor, " c_out"] | None = None
    ) -> Float[Tensor, "*cells c_out"]:
        weights = (self.weight, self.bias) if scale is None else self.scaled(scale)
        return F.linear(maps, *weights)


class PlainAttentionBlock(AttentionBlock):
    def forward(self, x: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h w c"]:
        x = x + self.drop_path(_scaled(self.attention(self.norm1(x)), self.ls1))
        return x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.ls2))


def _scaled(maps: Float[Tensor, "n h w c"], scale: nn.Module) -> Float[Tensor, "n h w c"]:
    return maps * scale.gamma if isinstance(scale, LayerScale) else maps


PLAIN_LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    ConvBlock: PlainConvBlock,
    MapLinear: PlainLinear,
    AttentionBlock: PlainAttentionBlock,
}


def replace_layers(detector: Detector, kinds: set[type[nn.Module]]) -> None:
    """Give the detector's layers of these kinds, keys of `PLAIN_LAYERS`, their plain forward pass."""
    for module in detector.modules():
        if type(module) in kinds:
            module.__class__ = PLAIN_LAYERS[type(module)]


def encode(
    detector: Detector,
    frames: list[UInt8[Tensor, "b c h w"]],
    labelled: Int64[Tensor, " k"],
    state: list[LstmState] | None,
) -> tuple[Features, list[LstmState]]:
    """Walk over the frames, each through all stages; give the maps of labelled frames (l * B + b), and the state."""
    num_lanes = len(frames[0])
    selected: list[list[Tensor]] = [[], [], []]
    height, width = frames[0].shape[-2:]
    below, right = -height % detector.padding_hw[0], -width % detector.padding_hw[1]
    for step, frame in enumerate(frames):
        maps = F.pad(frame.to(torch.float32), (0, right, 0, below))
        features, new_state = [], []
        for index, stage in enumerate(detector.backbone.stages):
            maps, stage_state = _stage(stage, maps, None if state is None else state[index])
            features.append(maps)
            new_state.append(stage_state)
        state = new_state
        lanes = labelled[(labelled >= step * num_lanes) & (labelled < (step + 1) * num_lanes)] - step * num_lanes
        if len(lanes):
            for kept, level in zip(selected, features[1:], strict=True):
                kept.append(level[lanes.to(level.device)])
    assert state is not None, "no frames"
    return tuple(torch.cat(kept) for kept in selected), state


def _stage(stage: nn.Module, x: Float[Tensor, "b c_in h_in w_in"], state: LstmState | None) -> tuple[Tensor, LstmState]:
    assert isinstance(stage, Stage)
    maps = stage.downsample.norm(stage.downsample.conv(x).permute(0, 2, 3, 1))
    for block in stage.blocks:
        maps = block(maps)
    x = maps.permute(0, 3, 1, 2).contiguous()
    lstm = stage.cell
    assert isinstance(lstm, Lstm2d)
    hidden, cell = (torch.zeros_like(x), torch.zeros_like(x)) if state is None else state
    forget, input_, output, cell_input = lstm.gates(torch.cat((x, hidden), dim=1)).chunk(4, dim=1)
    cell = forget.sigmoid() * cell + input_.sigmoid() * cell_input.tanh()
    hidden = output.sigmoid() * cell.tanh()
    return hidden, (hidden, cell)


@torch.no_grad()
def assign_anchors(
    predictions: HeadOutput, boxes: Float[Tensor, "n 5"], box_image: Int64[Tensor, " n"]
) -> Int64[Tensor, "k a"]:
    """SimOTA, one image after the other; as `models.assignment.assign_anchors`."""
    decoded = decode_boxes(predictions.box_offsets, predictions.anchors)
    assigned = torch.full(decoded.shape[:2], len(boxes), device=boxes.device)
    for image in range(len(decoded)):
        own = (box_image == image).nonzero()[:, 0]
        if len(own):
            _assign_image(assigned[image], decoded[image], predictions, image, boxes[own], own)
    return assigned


def _assign_image(
    assigned: Int64[Tensor, " a"],
    decoded: Float[Tensor, "a 4"],
    predictions: HeadOutput,
    image: int,
    boxes: Float[Tensor, "g 5"],
    numbers: Int64[Tensor, " g"],
) -> None:
    anchors = predictions.anchors
    distance = (anchors.centre_xy[None] - boxes[:, None, 1:3]).abs().amax(dim=2)
    near = distance < CENTRE_RADIUS * anchors.stride
    candidates = near.any(dim=0).nonzero()[:, 0]
    if len(candidates) == 0:
        return
    near = near[:, candidates]
    shape = (len(boxes), len(candidates), -1)
    iou = paired_iou(decoded[candidates][None].expand(shape), boxes[:, None, 1:].expand(shape))
    objectness = predictions.objectness_logits[image, candidates].sigmoid()
    probability = (predictions.class_logits[image, candidates].sigmoid() * objectness[:, None]).sqrt()
    one_hot = F.one_hot(boxes[:, 0].long(), probability.shape[1]).to(probability.dtype)
    class_cost = F.binary_cross_entropy(
        probability[None].expand(shape), one_hot[:, None].expand(len(boxes), len(candidates), -1), reduction="none"
    ).sum(dim=2)
    cost = class_cost - IOU_WEIGHT * (iou + 1e-8).log() + OUTSIDE_COST * ~near
    takes = torch.zeros_like(near)
    most = min(MAX_ANCHORS_PER_BOX, len(candidates))
    for box, count in enumerate(iou.topk(most, dim=1).values.sum(dim=1).int().clamp(min=1).tolist()):
        takes[box, cost[box].topk(count, largest=False).indices] = True
    contested = takes.sum(dim=0) > 1
    if contested.any():
        cheapest = cost[:, contested].argmin(dim=0)
        takes[:, contested] = False
        takes[cheapest, contested] = True
    taken = takes.any(dim=0)
    assigned[candidates[taken]] = numbers[takes[:, taken].int().argmax(dim=0)]
