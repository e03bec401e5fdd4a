import pytest
import torch
from torch import Tensor

from models.anchors import HeadOutput, make_anchors
from models.assignment import assign_anchors
from scripts.benchmarks.plain_network import assign_anchors as image_by_image
from tests.network import golden, golden_detector, training_boxes, training_features

FRAME_HW = (64, 96)
NUM_CLASSES = 3


def predictions_for(num_images: int, seed: int = 0) -> HeadOutput:
    """Plausible guesses: boxes of a few strides around each anchor; float64, so that no two costs are equal."""
    generator = torch.Generator().manual_seed(seed)
    strides = (8, 16, 32)
    anchors = make_anchors([(FRAME_HW[0] // s, FRAME_HW[1] // s) for s in strides], strides, torch.device("cpu"))

    def normal(*shape: int) -> Tensor:
        return torch.randn(num_images, len(anchors.stride), *shape, generator=generator, dtype=torch.float64)

    return HeadOutput(normal(4) * 0.7, normal(), normal(NUM_CLASSES), anchors)


def boxes_for(counts: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random boxes, `counts` of them per image; some centres lie outside the frame."""
    torch.manual_seed(seed)
    n = sum(counts)
    class_id = torch.randint(NUM_CLASSES, (n, 1)).double()
    centre = torch.rand(n, 2).double() * torch.tensor([130.0, 90.0]) - 10
    size = torch.rand(n, 2).double() * 50 + 2
    return torch.cat((class_id, centre, size), dim=1), torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def test_foreground_and_boxes_of_the_reference():
    detector = golden_detector().train()
    boxes, box_image = training_boxes()
    assigned = assign_anchors(detector.predict(training_features(detector)), boxes, box_image)
    expected = golden("model_train")["assign_gt_index"]
    first_box = torch.bincount(box_image, minlength=4).cumsum(0) - torch.bincount(box_image, minlength=4)
    within_image = torch.where(assigned < len(boxes), assigned - first_box[:, None], -1)
    assert within_image.tolist() == expected.tolist()


@pytest.mark.parametrize("whole", [False, True], ids=["candidates only, as on a CPU", "all anchors, as on a GPU"])
@pytest.mark.parametrize("counts", [[5, 0, 2], [1], [0, 12], [25, 3, 1, 9]])
def test_batch_at_once_equals_one_image_after_the_other(counts, whole, monkeypatch):
    monkeypatch.setattr("models.assignment._fits_whole", lambda near: whole)
    predictions = predictions_for(len(counts), seed=sum(counts))
    boxes, box_image = boxes_for(counts, seed=sum(counts))
    assigned = assign_anchors(predictions, boxes, box_image)
    assert torch.equal(assigned, image_by_image(predictions, boxes, box_image))


def test_order_of_boxes_does_not_matter():
    predictions = predictions_for(3)
    boxes, box_image = boxes_for([6, 1, 8])
    order = torch.randperm(15)
    shuffled = assign_anchors(predictions, boxes[order], box_image[order])
    original = assign_anchors(predictions, boxes, box_image)
    assert torch.equal(torch.cat((order, torch.tensor([15])))[shuffled], original)


def test_no_boxes_no_foreground():
    boxes, box_image = boxes_for([0, 0])
    assert (assign_anchors(predictions_for(2), boxes, box_image) == 0).all()


def test_five_hundred_boxes_in_one_image():
    boxes, box_image = boxes_for([0, 500])
    assigned = assign_anchors(predictions_for(2), boxes, box_image)
    assert (assigned[0] == 500).all()
    assert (assigned[1] < 500).sum() > 126 / 2  # of 126 anchors, most lie near some box


@pytest.mark.parametrize(
    "row",
    [
        [1, 1000, 30, 20, 20],  # centre too far outside for any anchor
        [3, 50, 30, 20, 20],  # no such class
        [-1, 50, 30, 20, 20],
        [1, 50, 30, 0, 20],  # no area
        [0, 0, 0, 0, 0],  # padding
        [1, float("nan"), 30, 20, 20],
        [float("nan"), 50, 30, 20, 20],
        [1, 50, 30, float("inf"), 20],
    ],
)
def test_boxes_that_cannot_be_learned_take_nothing_and_leave_others_alone(row):
    bad = torch.tensor([row], dtype=torch.float64)
    good = torch.tensor([[2, 40, 30, 25, 20]], dtype=torch.float64)
    predictions = predictions_for(2)
    assert (assign_anchors(predictions, bad, torch.tensor([0])) == 1).all()
    alone = assign_anchors(predictions, good, torch.tensor([1]))
    both = assign_anchors(predictions, torch.cat((bad, good)), torch.tensor([0, 1]))
    assert torch.equal(both == 1, alone == 0)


def test_predictions_that_are_not_numbers_do_not_stop_it():
    predictions = predictions_for(1)
    predictions.class_logits[0, :5] = float("nan")
    predictions.box_offsets[0, 5:9] = float("inf")
    boxes, box_image = boxes_for([4])
    assigned = assign_anchors(predictions, boxes, box_image)
    assert (assigned >= 0).all()
    assert (assigned <= 4).all()
