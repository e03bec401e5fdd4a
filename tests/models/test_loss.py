import pytest
import torch

from config.schema import LossConfig
from data.boxes.overlap import paired_iou
from models.anchors import HeadOutput, make_anchors
from models.loss import YoloxLoss
from tests.network import golden, golden_detector, training_boxes, training_features

detection_loss = YoloxLoss(LossConfig())
BOX = [1.0, 20.0, 12.0, 16.0, 8.0]


def predictions_of(num_images=1, fill=0.0):
    """Three maps of 32 x 64 pixels, 2 classes, every number the same."""
    anchors = make_anchors([(4, 8), (2, 4), (1, 2)], (8, 16, 32), torch.device("cpu"))

    def values(*shape):
        return torch.full((num_images, 42, *shape), fill, requires_grad=True)

    return HeadOutput(values(4), values(), values(2), anchors)


def gradients_of(predictions, losses):
    return torch.autograd.grad(
        losses["loss"], (predictions.box_offsets, predictions.objectness_logits, predictions.class_logits)
    )


def test_six_losses_of_the_reference():
    detector = golden_detector().train()
    losses = detector.loss(training_features(detector), *training_boxes())
    expected = dict(zip(golden("model_train")["loss_names"], golden("model_train")["losses"], strict=True))
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-5, abs=0)


def test_perfect_prediction_costs_nothing_but_confidence():
    """A box of one stride around the anchor at (20, 12), predicted surely, everything else surely background."""
    predictions = predictions_of()
    with torch.no_grad():
        predictions.box_offsets[0, :, :2] = 0.5
        predictions.objectness_logits[:] = -30.0
        predictions.class_logits[:] = torch.tensor([-30.0, 30.0])
        predictions.objectness_logits[0, 8 + 2] = 30.0
    losses = detection_loss(predictions, torch.tensor([[1.0, 20.0, 12.0, 8.0, 8.0]]), torch.tensor([0]))
    assert losses["num_fg"] == 1
    assert losses["loss"].item() == pytest.approx(0, abs=1e-5)


def test_iou_loss_is_five_times_one_minus_squared_iou():
    """The only foreground anchor predicts the left half of the box."""
    predictions = predictions_of()
    with torch.no_grad():
        predictions.objectness_logits[:] = -30.0
        predictions.objectness_logits[0, 8 + 2] = 30.0
        predictions.box_offsets[0, :, :2] = 0.5
    losses = detection_loss(predictions, torch.tensor([[1.0, 24.0, 12.0, 16.0, 8.0]]), torch.tensor([0]))
    assert losses["num_fg"] == 1
    assert losses["iou_loss"].item() == pytest.approx(5 * (1 - 0.5**2))


def test_images_without_boxes_are_background():
    predictions = predictions_of(num_images=3)
    losses = detection_loss(predictions, torch.tensor([BOX]), torch.tensor([1]))
    gradients = gradients_of(predictions, losses)
    assert losses["num_fg"] >= 1
    assert (gradients[1][[0, 2]] > 0).all()  # less objectness everywhere
    assert (gradients[0][[0, 2]] == 0).all()
    assert (gradients[2][[0, 2]] == 0).all()


def test_batch_without_boxes_has_confidence_loss_alone():
    predictions = predictions_of(num_images=2)
    losses = detection_loss(predictions, torch.zeros(0, 5), torch.zeros(0, dtype=torch.long))
    assert losses["loss"].item() == pytest.approx(2 * 42 * torch.tensor(2.0).log().item())
    assert losses["loss"] == losses["conf_loss"]
    assert [losses[name].item() for name in ("iou_loss", "cls_loss", "num_fg")] == [0, 0, 0]
    assert all(gradient.isfinite().all() for gradient in gradients_of(predictions, losses))


def test_overflow_of_a_background_box_does_not_reach_the_gradient():
    predictions = predictions_of()
    with torch.no_grad():
        predictions.box_offsets[0, 0] = 200.0  # exp(200) is infinite
    losses = detection_loss(predictions, torch.tensor([[1.0, 60.0, 28.0, 8.0, 8.0]]), torch.tensor([0]))
    assert losses["loss"].isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients_of(predictions, losses))


def test_unusable_boxes_do_not_count():
    predictions = predictions_of()
    boxes = torch.tensor([BOX, [7.0, 20.0, 12.0, 16.0, 8.0], [0.0] * 5])
    alone = detection_loss(predictions, boxes[:1], torch.tensor([0]))
    together = detection_loss(predictions, boxes, torch.tensor([0, 0, 0]))
    assert {name: value.item() for name, value in alone.items()} == {n: v.item() for n, v in together.items()}


def test_iou_of_boxes_by_hand():
    a = torch.tensor([[5.0, 5.0, 10.0, 10.0], [5.0, 5.0, 10.0, 10.0], [5.0, 5.0, 10.0, 10.0]])
    b = torch.tensor([[5.0, 5.0, 10.0, 10.0], [10.0, 5.0, 10.0, 10.0], [30.0, 5.0, 10.0, 10.0]])
    torch.testing.assert_close(paired_iou(a, b), torch.tensor([1.0, 1 / 3, 0.0]))
