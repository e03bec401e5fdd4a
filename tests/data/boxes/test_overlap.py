"""Intersection over union, in the three forms of data/boxes/overlap.py, against one slow definition."""

from __future__ import annotations

import numpy as np
import torch

from data.boxes import xywh_from_cxcywh
from data.boxes.overlap import iou_with_own_image, paired_iou, ragged_ious


def slow_iou(a: list[float], b: list[float]) -> float:
    """Of two boxes: centre x, centre y, width, height."""

    def shared(axis: int) -> float:
        end = min(a[axis] + a[axis + 2] / 2, b[axis] + b[axis + 2] / 2)
        return max(0.0, end - max(a[axis] - a[axis + 2] / 2, b[axis] - b[axis + 2] / 2))

    intersection = shared(0) * shared(1)
    return intersection / (a[2] * a[3] + b[2] * b[3] - intersection)


def some_boxes(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, 4, generator=generator) * 20 + torch.tensor([20.0, 20.0, 2.0, 2.0])


def test_all_forms_agree_with_the_definition() -> None:
    boxes, anchors = some_boxes(5, seed=1), some_boxes(2, 7, seed=2)
    image = torch.tensor([0, 0, 1, 1, 1])
    own_anchors = anchors[image]
    expected = [
        [slow_iou(box, anchor) for anchor in own] for box, own in zip(boxes.tolist(), own_anchors.tolist(), strict=True)
    ]
    table = iou_with_own_image(boxes, image, anchors)
    np.testing.assert_allclose(table, expected, rtol=1e-5, atol=1e-7)
    assert table.max() > 0.3
    np.testing.assert_allclose(
        paired_iou(boxes[:, None].expand(5, 7, 4), anchors[image]), expected, rtol=1e-5, atol=1e-7
    )

    truth = xywh_from_cxcywh(boxes).double().numpy()
    found = xywh_from_cxcywh(anchors).double().reshape(-1, 4).numpy()
    start, stop = np.repeat([0, 2], 7), np.repeat([2, 5], 7)  # each anchor with the boxes of its image
    ious, offsets = ragged_ious(truth, start, stop, found)
    for row in range(14):
        own = [expected[box][row % 7] for box in range(start[row], stop[row])]
        np.testing.assert_allclose(ious[offsets[row] : offsets[row + 1]], own, rtol=1e-5, atol=1e-7)


def test_boxes_without_area_have_no_overlap() -> None:
    flat = torch.tensor([[5.0, 5.0, 0.0, 0.0]])
    assert paired_iou(flat, flat).tolist() == [0.0]
    assert iou_with_own_image(flat, torch.tensor([0]), flat[None]).tolist() == [[0.0]]
