"""The frozen network beside the one that it was made from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.detector import Detector
from models.inference import OneFrame
from models.postprocess import decode
from tests.network import NUM_CLASSES, PARTITION_SIZE, model_config

S5 = "model.backbone.stage.cell=s5"
DEPTHWISE = "model.backbone.stage.lstm.dws_conv=true"


def trained(*overrides: str) -> Detector:
    """Weights that no initialisation has: norms and scales far from 0 and 1."""
    torch.manual_seed(0)
    detector = Detector(model_config(*overrides), NUM_CLASSES, PARTITION_SIZE).eval()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(gamma := getattr(module, "gamma", None), nn.Parameter):
            nn.init.uniform_(gamma, 0.1, 1)
    return detector


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (S5,),
        (DEPTHWISE,),
        (DEPTHWISE, "model.backbone.stage.lstm.dws_conv_only_hidden=false"),
        ("model.backbone.stage.attention.mlp_gated=true", "model.fpn.in_stages=[1,2,3,4]"),
        ("model.fpn.depthwise=true", "model.head.depthwise=true", "model.backbone.stage.downsample.overlap=false"),
    ],
)
@torch.inference_mode()
def test_it_computes_what_the_detector_computes(overrides: tuple[str, ...]) -> None:
    """Two lanes over four frames that need padding."""
    detector, hw = trained(*overrides), (60, 120)
    network = OneFrame(detector, hw)
    own, state = network.first_state(2), None
    padded = network.padded_frames(20, lanes=2)
    frames = torch.randint(0, 4, (4, 2, 20, *hw), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for number, frame in enumerate(frames):
        features, state = detector.encode(frame[None], state)
        expected = decode(detector.predict(detector.select(features, torch.arange(2))))
        padded[..., : hw[0], : hw[1]] = frame
        predictions, own = network(padded if number % 2 else frame, *own)
        assert torch.allclose(predictions[..., :4], expected[..., :4], atol=2e-3, rtol=1e-5)
        assert torch.allclose(predictions[..., 4:], expected[..., 4:], atol=1e-5)
    assert len(network.state_names) == len(own) == (4 if S5 in overrides else 8)


@torch.inference_mode()
def test_bfloat16_is_that_of_autocast() -> None:
    """Products in bfloat16, states and predictions in float32; one frame, before errors add up."""
    detector, hw = trained(), (64, 128)
    network = OneFrame(detector, hw, torch.bfloat16)
    frame = torch.randint(0, 4, (1, 20, *hw), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, _ = detector.encode(frame[None], None)
        expected = decode(detector.predict(detector.select(features, torch.arange(1))))
    predictions, state = network(frame, *network.first_state())
    assert (predictions[..., 4:] - expected[..., 4:]).abs().max() < 0.02
    assert {part.dtype for part in (predictions, *state)} == {torch.float32}


def test_the_detector_stays_as_it_is() -> None:
    detector = trained()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    OneFrame(detector, (64, 128), torch.bfloat16)
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())
    assert all(parameter.requires_grad for parameter in detector.parameters())


def test_a_cell_of_a_users_own_is_refused() -> None:
    detector = trained()
    stage = detector.backbone.stages[0]
    stage._modules["lstm"] = nn.Identity()
    with pytest.raises(TypeError, match="type Identity cannot be frozen"):
        OneFrame(detector, (64, 128))


@torch.inference_mode()
def test_a_compiled_detector_is_frozen_like_any_other() -> None:
    """Its norms are folded; nothing reads them afterwards."""
    detector = trained("model.fpn.compile.enable=true", "model.head.compile.enable=true")
    network = OneFrame(detector, (64, 128))
    for statistics in detector.buffers():
        statistics.fill_(-1)
    with torch.compiler.set_stance("force_eager"):
        predictions, _ = network(torch.zeros(1, 20, 64, 128, dtype=torch.uint8), *network.first_state())
    assert predictions.isfinite().all()
