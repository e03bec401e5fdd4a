import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from config.schema import ClassWeightConfig, FocalConfig, LossConfig, LossWeightsConfig, SizeWeightConfig
from data.boxes.overlap import paired_iou
from models.anchors import HeadOutput, decode_boxes, make_anchors
from models.assignment import assign_anchors
from models.loss import YoloxLoss
from models.loss_terms import box_losses, cross_entropy, size_weights
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


def spread_predictions(device="cpu", classes=3):
    """Two images of 32 x 64 pixels, three maps, everything drawn."""
    torch.manual_seed(1)
    anchors = make_anchors([(4, 8), (2, 4), (1, 2)], (8, 16, 32), torch.device(device))
    values = [torch.randn(2, 42, size, device=device, requires_grad=True) for size in (4, 1, classes)]
    return HeadOutput(values[0], values[1].squeeze(2), values[2], anchors)


BOXES = torch.tensor([[0.0, 20, 12, 16, 8], [2, 50, 20, 1, 1], [1, 30, 16, 60, 30], [2, 10, 25, 5, 9]])
BOX_IMAGE = torch.tensor([0, 0, 1, 1])
COUNTS = np.array([100, 40, 1])
EVERYTHING = LossConfig(
    iou_kind="giou",
    weights=LossWeightsConfig(iou=3, objectness=2, classification=0.5),
    size_weight=SizeWeightConfig(kind="exponential", weight=2.5, small_area=64, parts=("iou", "objectness", "class")),
    class_weight=ClassWeightConfig(kind="inverse_frequency", parts=("class", "objectness")),
    focal=FocalConfig(gamma=2, alpha=0.25),
)


def slow_losses(output, config, class_weight):
    """One anchor after the other; what the parts are is tests/models/test_loss_terms.py's."""
    assigned = assign_anchors(output, BOXES, BOX_IMAGE)
    decoded = decode_boxes(output.box_offsets, output.anchors)
    sums = {"iou": 0.0, "objectness": 0.0, "class": 0.0}
    foreground = (assigned < len(BOXES)).nonzero().tolist()
    size = {tuple(at): size_weights(BOXES[assigned[tuple(at)], 3:].prod(), config.size_weight) for at in foreground}
    mean_size = sum(size.values()) / len(foreground)
    for image in range(2):
        for anchor in range(42):
            box = assigned[image, anchor]
            is_object = box < len(BOXES)
            weights = dict.fromkeys(sums, 1.0)
            one_hot = torch.zeros(output.class_logits.shape[2])
            if is_object:
                size_weight = size[image, anchor] / (mean_size if config.size_weight.normalise else 1)
                weights |= {part: size_weight for part in config.size_weight.parts}
                for part in config.class_weight.parts:
                    weights[part] = weights[part] * class_weight[BOXES[box, 0].long()]
                loss, iou = box_losses(config.iou_kind, decoded[image, anchor], BOXES[box, 1:])
                one_hot[BOXES[box, 0].long()] = 1
                logits = output.class_logits[image, anchor]
                of_class = cross_entropy(logits, one_hot * iou.detach(), one_hot > 0, config.focal, "class")
                sums["iou"] += weights["iou"] * loss
                sums["class"] += weights["class"] * of_class.sum()
            logit = output.objectness_logits[image, anchor]
            of_object = cross_entropy(logit, is_object.float(), is_object, config.focal, "objectness")
            sums["objectness"] += weights["objectness"] * of_object
    names = {
        "iou_loss": ("iou", "iou"),
        "conf_loss": ("objectness", "objectness"),
        "cls_loss": ("class", "classification"),
    }
    return {
        name: getattr(config.weights, weight) * sums[part] / len(foreground) for name, (part, weight) in names.items()
    }


@pytest.mark.parametrize("normalise", [False, True])
def test_all_settings_together_are_the_loss_anchor_by_anchor(normalise):
    size = EVERYTHING.size_weight.model_copy(update={"normalise": normalise})
    config = EVERYTHING.model_copy(update={"size_weight": size})
    loss, output = YoloxLoss(config), spread_predictions()
    class_weight = loss.weigh_classes(COUNTS)
    losses = loss(output, BOXES, BOX_IMAGE)
    expected = slow_losses(output, config, class_weight)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    ours, theirs = gradients_of(output, losses), gradients_of(output, {"loss": sum(expected.values())})
    for gradient, slow in zip(ours, theirs, strict=True):
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradient, slow)


def test_a_mean_size_weight_of_one_with_no_foreground_is_no_fault():
    size = SizeWeightConfig(kind="linear", normalise=True, parts=("iou", "objectness"))
    losses = YoloxLoss(LossConfig(size_weight=size))(predictions_of(), torch.zeros(0, 5), torch.zeros(0).long())
    assert losses["loss"] == losses["conf_loss"]
    assert losses["loss"].isfinite()


@pytest.mark.parametrize(
    "config",
    [
        LossConfig(),
        EVERYTHING,
        EVERYTHING.model_copy(
            update={"iou_kind": "ciou", "size_weight": SizeWeightConfig(kind="step", normalise=True)}
        ),
    ],
)
def test_no_loss_waits_for_the_device(config):
    """A fake tensor has no value: what the host would have to wait for fails."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        loss = YoloxLoss(config)
        loss.class_weight = torch.ones(3)
        output = spread_predictions("cuda")
        boxes, box_image = torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64)
        assert loss(output, boxes, box_image)["loss"].requires_grad


def test_weights_of_classes_travel_with_the_network_and_stay_out_of_its_checkpoint():
    loss = YoloxLoss(EVERYTHING)
    loss.weigh_classes(COUNTS)
    assert not loss.state_dict()
    assert loss.to("meta").class_weight.device.type == "meta"
