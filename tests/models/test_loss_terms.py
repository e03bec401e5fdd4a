from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

from config.schema import ClassWeightConfig, FocalConfig, SizeWeightConfig
from data.boxes import xyxy_from_cxcywh
from models.loss_terms import box_losses, class_weights, cross_entropy, size_weights

AREAS = [0.5, 1, 100, 700, 709, 710, 711, 1023, 1024, 1025, 4000, 9216, 9217, 1e6]


def exponential(area: float, w: float, small: float, medium: float) -> float:
    return min(max(w * math.exp(-area / small), 1), w)


def step(area: float, w: float, small: float, medium: float) -> float:
    if area <= small:
        return w
    return (w + 1) / 2 if area <= medium else 1.0


def linear(area: float, w: float, small: float, medium: float) -> float:
    return min(max(w * (1 - min(area / medium, 1)) + 1, 1), w)


@pytest.mark.parametrize("kind", [exponential, step, linear])
@pytest.mark.parametrize("weight", [1.0, 2.0, 2.5])
def test_weight_by_size_is_as_defined(kind, weight):
    config = SizeWeightConfig(kind=kind.__name__, weight=weight)
    expected = [kind(area, weight, 1024, 9216) for area in AREAS]
    torch.testing.assert_close(size_weights(torch.tensor(AREAS), config), torch.tensor(expected, dtype=torch.float32))


def test_an_exponential_weight_of_two_has_reached_one_at_710_pixels():
    """1024 ln 2 = 709.8: above it, nothing that COCO calls small has any weight more than a large box."""
    weights = size_weights(torch.tensor([700.0, 710.0, 1024.0]), SizeWeightConfig(kind="exponential", weight=2.0))
    assert weights[0] > 1
    assert weights[1:].tolist() == [1, 1]


def test_weights_by_frequency_give_each_class_the_same_total():
    counts = np.array([300, 20, 0, 4])
    weights = class_weights(counts, ClassWeightConfig(kind="inverse_frequency"))
    expected = [324 / (3 * 300), 324 / (3 * 20), 1, 324 / (3 * 4)]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("beta", [0.9, 0.9999, 1 - 1e-9])
def test_weights_by_effective_number(beta):
    """1 + beta + ... + beta^(n - 1) is the effective number of n boxes; the mean weight of all boxes is 1."""
    counts = np.array([30_000, 500, 0, 1])
    effective = [sum(beta**i for i in range(n)) for n in counts]
    weights = class_weights(counts, ClassWeightConfig(kind="effective_number", beta=beta))
    scale = counts.sum() / sum(n / e for n, e in zip(counts, effective, strict=True) if n)
    expected = [scale / e if n else 1.0 for n, e in zip(counts, effective, strict=True)]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=0)
    assert (weights.double().numpy() * counts).sum() == pytest.approx(counts.sum(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_terms_are_the_papers_for_hard_targets(gamma, alpha):
    logits = torch.tensor([-30.0, -2.0, 0.0, 0.3, 3.0, 30.0])
    for target in (0.0, 1.0):
        expected = []
        for logit in logits.double().tolist():
            p = 1 / (1 + math.exp(-logit))
            p_t = p if target else 1 - p
            alpha_t = 1.0 if alpha is None else alpha if target else 1 - alpha
            log_p_t = -math.log1p(math.exp(-logit if target else logit))
            expected.append(-alpha_t * (1 - p_t) ** gamma * log_p_t)
        targets = torch.full_like(logits, target)
        focal = FocalConfig(gamma=gamma, alpha=alpha)
        loss = cross_entropy(logits, targets, targets > 0, focal, "class")
        torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-6)


def test_focal_terms_are_for_the_parts_that_are_named():
    logits, target = torch.tensor([0.5, -1.0]), torch.tensor([1.0, 0.0])
    focal = FocalConfig(gamma=2, parts=("class",))
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    assert torch.equal(cross_entropy(logits, target, target > 0, focal, "objectness"), plain)
    assert (cross_entropy(logits, target, target > 0, focal, "class") < plain).all()


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Of 0.1 to 100 pixels, many of which overlap."""
    torch.manual_seed(0)
    boxes = torch.cat((torch.rand(2, 200, 2) * 60, 10 ** (torch.rand(2, 200, 2) * 3 - 1)), dim=2)
    return boxes[0], boxes[1]


@pytest.mark.parametrize(("kind", "definition"), [("giou", generalized_box_iou_loss), ("ciou", complete_box_iou_loss)])
def test_box_losses_are_torchvisions(kind, definition):
    predicted, target = pairs()
    predicted.requires_grad_()
    loss, _ = box_losses(kind, predicted, target)
    expected = definition(xyxy_from_cxcywh(predicted), xyxy_from_cxcywh(target))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    (ours,) = torch.autograd.grad(loss.sum(), predicted)
    (theirs,) = torch.autograd.grad(expected.sum(), predicted)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["iou", "giou", "ciou"])
def test_boxes_of_a_pixel_and_of_a_point_have_finite_gradients(kind):
    sizes = torch.tensor([[1.0, 1.0], [1e-30, 1e-30], [0.0, 0.0], [1.0, 600.0]])
    centres = torch.tensor([[5.0, 5.0], [5.0, 5.0], [5.0, 5.0], [900.0, 5.0]])
    predicted = torch.cat((centres, sizes), dim=1).requires_grad_()
    for target in ([5.0, 5.0, 1.0, 1.0], [40.0, 30.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]):  # the last is background's
        loss, iou = box_losses(kind, predicted, torch.tensor(target).expand(4, 4))
        (gradient,) = torch.autograd.grad(loss.sum(), predicted)
        assert loss.isfinite().all()
        assert iou.isfinite().all()
        assert gradient.isfinite().all()
