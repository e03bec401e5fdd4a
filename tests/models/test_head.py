import math

import torch

from models.anchors import Anchors, decode_boxes, make_anchors
from models.head import YoloxHead
from models.loss import build_loss
from models.postprocess import decode
from tests.network import (
    frame_indices,
    frames_of_call,
    golden,
    golden_detector,
    largest_difference,
    model_config,
)


@torch.no_grad()
def test_predictions_of_the_reference():
    detector = golden_detector().eval()
    features, _ = detector.encode(frames_of_call(1), None)
    predictions = detector.predict(detector.select(features, frame_indices(golden("model_detect")["detect_sel"])))
    expected = golden("model_detect")["head_undecoded"]
    assert largest_difference(predictions.box_offsets, expected[..., :4]) < 2e-5
    assert largest_difference(predictions.objectness_logits.sigmoid(), expected[..., 4]) < 2e-5
    assert largest_difference(predictions.class_logits.sigmoid(), expected[..., 5:]) < 2e-5
    assert largest_difference(decode(predictions), golden("model_detect")["head_decoded"]) < 2e-4  # pixels


def test_anchors_are_listed_by_stride_then_row_by_row():
    anchors = make_anchors([(2, 3), (1, 2)], (8, 16), torch.device("cpu"))
    assert anchors.stride.tolist() == [8] * 6 + [16] * 2
    assert anchors.centre_xy.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8], [24, 8]]


def test_boxes_are_offsets_from_the_cell_and_logarithms_of_size_in_strides():
    anchors = Anchors(cell_xy=torch.tensor([[3.0, 1.0]]), stride=torch.tensor([16.0]))
    box = decode_boxes(torch.tensor([[[0.5, 0.25, 0.0, math.log(2)]]]), anchors)
    torch.testing.assert_close(box, torch.tensor([[[56.0, 20.0, 16.0, 32.0]]]))


def small_head():
    config = model_config()
    head = YoloxHead(config.head, 3, (8, 16, 32), (8, 16, 32), build_loss(config.loss, 3), config.postprocess)
    return head.eval()


def test_one_head_takes_maps_of_any_size_one_after_the_other():
    head = small_head()
    for height, width in ((2, 4), (6, 3), (2, 4)):
        maps = tuple(torch.zeros(1, dim, height * k, width * k) for dim, k in ((8, 4), (16, 2), (32, 1)))
        predictions = head(maps)
        assert predictions.class_logits.shape == (1, height * width * 21, 3)
        assert predictions.anchors.stride.shape == (height * width * 21,)


def test_untrained_head_believes_in_one_object_per_hundred_anchors():
    head = small_head()
    predictions = head(tuple(torch.zeros(1, dim, size, size) for dim, size in ((8, 4), (16, 2), (32, 1))))
    torch.testing.assert_close(predictions.objectness_logits.sigmoid(), torch.full((1, 21), 0.01))
    torch.testing.assert_close(predictions.class_logits.sigmoid(), torch.full((1, 21, 3), 0.01))


def test_predictions_are_float32_under_autocast():
    head = small_head()
    with torch.autocast("cpu", torch.bfloat16):
        predictions = head(tuple(torch.zeros(1, dim, size, size) for dim, size in ((8, 4), (16, 2), (32, 1))))
    assert predictions.box_offsets.dtype == predictions.class_logits.dtype == torch.float32


def test_predictions_are_not_rounded_to_half_precision():
    head = golden_detector().eval().head
    features = tuple(torch.randn(1, conv.conv.in_channels, 4, 4) for conv in head.stems)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = head(features)
    for values in (predictions.box_offsets, predictions.objectness_logits, predictions.class_logits):
        assert not torch.equal(values, values.bfloat16().float())
