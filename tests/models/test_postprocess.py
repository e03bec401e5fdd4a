from itertools import pairwise

import pytest
import torch

from models.postprocess import postprocess
from tests.network import golden, golden_tensor, largest_difference


def per_image(name):
    rows, offsets = golden("model_detect")[name], golden("model_detect")[f"{name}_offsets"]
    return [rows[start:stop] for start, stop in pairwise(offsets)]


def prediction(x, y, size, objectness, *classes):
    return [x, y, size, size, objectness, *classes]


@pytest.mark.parametrize(("name", "threshold"), [("post_conf0.001", 0.001), ("post_conf0.1", 0.1)])
def test_detections_of_the_reference(name, threshold):
    detections = postprocess(golden_tensor("model_detect", "head_decoded"), threshold, 0.45)
    for ours, theirs in zip(detections, per_image(name), strict=True):
        assert largest_difference(ours, theirs) < 1e-5


@pytest.mark.parametrize(
    ("threshold", "rows", "offsets"),
    [
        (0.1, "postcase_det", "postcase_offsets"),
        (0.001, "postcase_det_conf0.001", "postcase_det_conf0.001_offsets"),
    ],
)
def test_hand_made_cases_of_the_reference(threshold, rows, offsets):
    """A score on the threshold, an empty image, overlap within a class, overlap between classes."""
    detections = postprocess(golden_tensor("model_detect", "postcase_pred"), threshold, 0.45)
    lengths = golden_tensor("model_detect", offsets).diff()
    assert [len(image) for image in detections] == lengths.tolist()
    assert largest_difference(torch.cat(detections), golden("model_detect")[rows]) < 1e-5


def test_best_of_overlapping_boxes_of_a_class_stays():
    decoded = torch.tensor([[
        prediction(50, 50, 20, 0.8, 0.9, 0.1),
        prediction(51, 50, 20, 0.9, 0.9, 0.1),  # same class, better: suppresses the first
        prediction(50, 51, 20, 0.5, 0.1, 0.9),  # another class: stays
        prediction(99, 50, 20, 0.9, 0.05, 0.1),  # 0.09: below the threshold
    ]])  # fmt: skip
    (detections,) = postprocess(decoded, 0.1, 0.45)
    expected = [[41, 40, 61, 60, 0.9, 0.9, 0], [40, 41, 60, 61, 0.5, 0.9, 1]]
    torch.testing.assert_close(detections, torch.tensor(expected))


def test_boxes_that_are_not_numbers_are_dropped():
    nan, inf = float("nan"), float("inf")
    decoded = torch.tensor([[
        prediction(nan, 50, 20, 0.9, 0.9),
        prediction(50, 50, inf, 0.9, 0.9),
        prediction(50, 50, 20, nan, 0.9),
        prediction(50, 50, 20, 0.9, nan),
        prediction(50, 50, 20, 0.5, 0.5),
    ]])  # fmt: skip
    (detections,) = postprocess(decoded, 0.1, 0.45)
    assert detections[:, 4].tolist() == [0.5]


def test_half_precision_predictions_are_accepted():
    decoded = golden_tensor("model_detect", "head_decoded").bfloat16()
    for image in postprocess(decoded, 0.1, 0.45):
        assert image.dtype == torch.float32
        assert len(image) > 5


def test_images_without_detections_give_empty_tables():
    assert [d.shape for d in postprocess(torch.zeros(2, 5, 8), 0.1, 0.45)] == [(0, 7), (0, 7)]


def test_many_candidates_lose_none(monkeypatch):
    """From MANY_CANDIDATES on another way is taken; with one class or several its outcome is torchvision's."""
    generator = torch.Generator().manual_seed(1)
    monkeypatch.setattr("models.postprocess.MANY_CANDIDATES", 1000)
    decoded = torch.rand(2, 3000, 8, generator=generator) * torch.tensor([640.0, 384.0, 80.0, 80.0, 1, 1, 1, 1])
    decoded[1, :, 6:] = 0  # one class
    many = postprocess(decoded, 0.001, 0.45)
    monkeypatch.setattr("models.postprocess.MANY_CANDIDATES", 10_000)
    for image, expected in zip(many, postprocess(decoded, 0.001, 0.45), strict=True):
        assert len(image) > 1000
        assert torch.equal(image, expected)
