import ast
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import models
from config.loading import load_train_config
from models.assignment import _fits_whole
from models.detector import Detector
from models.weights.published_names import rename
from tests.network import (
    GOLDEN,
    NUM_CLASSES,
    frames_of_call,
    golden,
    golden_detector,
    largest_difference,
    model_config,
    training_boxes,
    training_features,
)


def small_detector(*overrides, **options):
    torch.manual_seed(0)
    return Detector(model_config("model.backbone.embed_dim=8", *overrides), NUM_CLASSES, (1, 1), **options)


def boxes_in(num_images, per_image=3):
    torch.manual_seed(0)
    n = num_images * per_image
    class_id = torch.randint(NUM_CLASSES, (n, 1)).float()
    boxes = torch.cat((class_id, 20 + 40 * torch.rand(n, 2), 5 + 20 * torch.rand(n, 2)), dim=1)
    return boxes, torch.arange(num_images).repeat_interleave(per_image)


# --- against the reference -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_once():
    detector = golden_detector().train()
    detector.loss(training_features(detector), *training_boxes())["loss"].backward()
    return detector


def test_gradient_norms_of_the_reference(trained_once):
    gradients = {name: parameter.grad for name, parameter in trained_once.named_parameters()}
    names, norms = golden("model_train")["grad_names"], golden("model_train")["grad_norms"]
    assert len(gradients) == len(names)
    for name, norm in zip(names, norms, strict=True):
        assert gradients[rename(name)].norm().item() == pytest.approx(norm, rel=1e-4)


def test_full_gradients_of_the_reference(trained_once):
    gradients = {f"grad__{name}": parameter.grad for name, parameter in trained_once.named_parameters()}
    for key in (key for key in golden("model_train") if key.startswith("grad__")):
        expected = golden("model_train")[key]
        assert largest_difference(gradients[rename_after("grad__", key)], expected) < 1e-4 * abs(expected).max()


def test_batch_statistics_of_the_reference(trained_once):
    buffers = {f"bn_after__{name}": buffer for name, buffer in trained_once.named_buffers()}
    for key in (key for key in golden("model_train") if key.startswith("bn_after__")):
        assert largest_difference(buffers[rename_after("bn_after__", key)], golden("model_train")[key]) < 1e-6


def rename_after(prefix, key):
    return prefix + rename(key.removeprefix(prefix))


@pytest.mark.parametrize("published", json.loads((GOLDEN / "model_param_counts.json").read_text()), ids=str)
def test_published_sizes_have_their_parameter_counts(published):
    group = "gen1" if published["dataset"] == "gen1" else "gen4"
    config = load_train_config([f"dataset={group}", f"+experiment/{group}={published['size']}", "dataset.path=."])
    with torch.device("meta"):
        detector = Detector(config.model, published["num_classes"], tuple(published["partition_size"]))
    assert sum(parameter.numel() for parameter in detector.parameters()) == published["n_params"]
    assert len(detector.state_dict()) == published["n_keys"]
    assert config.partition_size == tuple(published["partition_size"])


# --- any input -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_frames_are_padded_below_and_right_to_whole_windows():
    detector = golden_detector().eval()
    frames = frames_of_call(1)[:2, :, :, :50, :100]
    padded = torch.zeros_like(frames_of_call(1)[:2])
    padded[..., :50, :100] = frames
    for ours, expected in zip(detector.encode(frames, None)[0], detector.encode(padded, None)[0], strict=True):
        torch.testing.assert_close(ours, expected)


@torch.no_grad()
def test_one_detector_takes_frames_of_any_size_and_type():
    detector = golden_detector().eval()
    for height, width in ((64, 128), (180, 320), (64, 128)):
        frames = torch.randint(0, 10, (1, 1, 20, height, width), dtype=torch.uint8)
        features, _ = detector.encode(frames, None)
        heights = [-(-height // 64) * 64 // stride for stride in (8, 16, 32)]
        assert [maps.shape[3] for maps in features] == heights
        as_float, _ = detector.encode(frames.float(), None)
        assert torch.equal(features[0], as_float[0])
        assert len(detector.detect(detector.select(features, torch.tensor([0])))) == 1


def test_select_picks_frames_by_time_then_lane():
    maps = torch.arange(6.0).view(3, 2, 1, 1, 1)
    (selected,) = small_detector().select((maps,), torch.tensor([1, 4]))
    assert selected.flatten().tolist() == [1, 4]


def test_without_labelled_frames_the_loss_is_zero_and_reaches_every_parameter():
    detector = small_detector()
    features, _ = detector.encode(torch.zeros(1, 2, 20, 64, 64, dtype=torch.uint8), None)
    selected = detector.select(features, torch.zeros(0, dtype=torch.long))
    losses = detector.loss(selected, torch.zeros(0, 5), torch.zeros(0, dtype=torch.long))
    losses["loss"].backward()
    assert all((parameter.grad == 0).all() for parameter in detector.fpn.parameters())
    assert all((parameter.grad == 0).all() for parameter in detector.head.parameters())
    assert {name: value.item() for name, value in losses.items()} == dict.fromkeys(
        golden("model_train")["loss_names"], 0
    )
    assert detector.detect(selected) == []


def test_detections_are_pixels_best_score_first():
    detector = golden_detector().eval()
    (image,) = detector.detect(detector.select(detector.encode(frames_of_call(1), None)[0], torch.tensor([6])))
    score = image[:, 4] * image[:, 5]
    assert len(image) > 5
    assert (score.diff() <= 0).all()
    assert (image[:, 2:4] > image[:, :2]).all()
    assert image[:, 6].unique().tolist() == sorted(set(image[:, 6].tolist()) & set(range(NUM_CLASSES)))


# --- training step ---------------------------------------------------------------------------------------------------


class HostReads(TorchDispatchMode):
    """Counts operations whose result, or whose result's shape, the host must read from the device."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "equal", "bincount")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
            for index in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        if by_mask or any(name.startswith(waiting) for waiting in self.WAITING):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def test_host_reads_are_counted():
    with HostReads() as reads:
        mask = torch.tensor([True, False])
        _ = mask.nonzero(), torch.ones(2)[mask], mask.sum().item()
    assert len(reads.seen) >= 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_boxes", [0, 3])
def test_training_step_never_waits_for_the_device(num_boxes, dtype, monkeypatch):
    assert not _fits_whole(torch.empty(3, 5040))
    assert _fits_whole(torch.empty(500, 20_400, device="meta"))  # so does a GPU's: all that follows is its way
    monkeypatch.setattr("models.assignment._fits_whole", lambda near: True)
    detector = small_detector().train()
    frames = torch.randint(0, 10, (2, 2, 20, 64, 64), dtype=torch.uint8)
    labelled_frames = torch.tensor([0, 3])
    boxes, box_image = boxes_in(2, num_boxes)
    with HostReads() as reads:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            features, _ = detector.encode(frames, None)
            losses = detector.loss(detector.select(features, labelled_frames), boxes, box_image)
        losses["loss"].backward()
    assert reads.seen == []
    assert losses["loss"].isfinite()


def test_losses_are_float32_under_autocast():
    detector = golden_detector().train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector.loss(training_features(detector), *training_boxes())
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert losses["loss"].item() == pytest.approx(golden("model_train")["losses"][0], rel=0.1)


def test_bfloat16_detector_detects():
    detector = golden_detector().eval().bfloat16()
    features, _ = detector.encode(frames_of_call(1), None)
    (image,) = detector.detect(detector.select(features, torch.tensor([6])))
    assert image.dtype == torch.float32
    assert len(image) > 5


@pytest.mark.parametrize("part", ["backbone", "fpn", "head"])
def test_compile_settings_reach_their_part(part, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, mode: compiled.append((type(module), mode)))
    settings = (f"model.{part}.compile.enable=true", f"model.{part}.compile.args.mode=reduce-overhead")
    detector = small_detector(*settings)
    assert compiled == [(type(getattr(detector, part)), "reduce-overhead")]


def test_models_do_not_know_lightning():
    for path in Path(models.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] not in ("pytorch_lightning", "lightning")


FOUR_SCALES, STEM_OF_2, STEM_OF_3 = (
    "model.fpn.in_stages=[1,2,3,4]",
    "model.backbone.stem.patch_size=2",
    "model.backbone.stem.patch_size=3",
)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (FOUR_SCALES, {4: 512, 8: 128, 16: 32, 32: 8}),
        (STEM_OF_2, {4: 512, 8: 128, 16: 32}),  # all strides are halved
        (
            STEM_OF_3,
            {6: 24 * 20, 12: 12 * 10, 24: 6 * 5},
        ),  # 60 x 120 pixels, padded to 3 x 5 units of 24, twice as high
    ],
)
def test_other_scales_train_and_detect(setting, expected):
    """Anchors by stride."""
    partition = (6, 5) if setting == STEM_OF_3 else (2, 4)
    detector = Detector(model_config(setting), num_classes=8, partition_size=partition).train()
    features, _ = detector.encode(torch.randint(0, 10, (2, 1, 20, 60, 120), dtype=torch.uint8), None)
    selected = detector.select(features, torch.tensor([1]))
    strides = detector.predict(selected).anchors.stride
    assert {float(stride): int((strides == stride).sum()) for stride in strides.unique()} == expected
    losses = detector.loss(selected, torch.tensor([[1.0, 30.0, 20.0, 6.0, 5.0]]), torch.tensor([0]))
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
    (detections,) = detector.eval().detect(selected)
    assert detections.shape[1] == 7
