"""Non-maximum suppression on a grid, against torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from data.boxes.suppression import suppress_many


def sizes(kind: str, n: int, generator: torch.Generator) -> torch.Tensor:
    draw = torch.rand(n, 2, generator=generator)
    return {"small": draw * 3 + 1, "like objects": draw * 60 + 4, "any": (draw * 7).exp(), "huge": draw * 900}[kind]


@pytest.mark.parametrize("num_classes", [1, 8])
@pytest.mark.parametrize("kind", ["small", "like objects", "any", "huge"])
def test_it_keeps_what_torchvision_keeps(kind: str, num_classes: int) -> None:
    generator = torch.Generator().manual_seed(num_classes)
    n = 3000
    centre, size = torch.rand(n, 2, generator=generator) * torch.tensor([640.0, 384.0]), sizes(kind, n, generator)
    boxes = torch.cat((centre - size / 2, centre + size / 2), dim=1)
    scores = torch.randperm(n, generator=generator) / n
    class_id = torch.randint(num_classes, (n,), generator=generator).float()
    kept = suppress_many(boxes.numpy(), scores.numpy(), class_id.numpy(), 0.45)
    assert kept.tolist() == batched_nms(boxes, scores, class_id, 0.45).tolist()
    assert 10 < len(kept) < n


def test_boxes_far_outside_and_none_at_all() -> None:
    rows = [[-1e9, 0.0, -1e9 + 100, 10.0], [-1e9, 0.0, -1e9 + 100, 10.0], [1e9, 1e9, 2e9, 2e9]]
    far, none = np.array(rows, np.float32), np.zeros(0, np.float32)
    scores = np.array([0.1, 0.3, 0.2], np.float32)
    assert suppress_many(far, scores, np.zeros(3, np.float32), 0.45).tolist() == [1, 2]
    assert suppress_many(none.reshape(0, 4), none, none, 0.45).tolist() == []
