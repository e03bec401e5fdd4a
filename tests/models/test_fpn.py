import pytest
import torch

from models.fpn import Pafpn
from tests.network import (
    frame_indices,
    frames_of_call,
    golden,
    golden_detector,
    largest_difference,
    model_config,
)

DIMS = (4, 8, 16, 32)  # of the four stages


@torch.no_grad()
def test_maps_of_the_reference():
    detector = golden_detector().eval()
    features, _ = detector.encode(frames_of_call(1), None)
    selected = detector.select(features, frame_indices(golden("model_detect")["detect_sel"]))
    for level, maps in enumerate(detector.fpn(selected)):
        assert largest_difference(maps, golden("model_detect")[f"fpn_out{level}"]) < 2e-5


@pytest.mark.parametrize(("depth", "bottlenecks"), [(0.33, 1), (0.67, 2), (1.0, 3)])
def test_depth_counts_bottlenecks_in_thirds(depth, bottlenecks):
    fpn = Pafpn(model_config(f"model.fpn.depth={depth}").fpn, DIMS)
    assert {len(getattr(fpn, name).bottlenecks) for name in ("top_down3", "top_down2", "bottom_up3", "bottom_up4")} == {
        bottlenecks
    }


@pytest.mark.parametrize("stages", ["[2,3,4]", "[1,2,3,4]"])
@pytest.mark.parametrize("depthwise", ["false", "true"])
def test_every_map_keeps_its_size(depthwise, stages):
    config = model_config(f"model.fpn.depthwise={depthwise}", f"model.fpn.in_stages={stages}").fpn
    fpn = Pafpn(config, DIMS)
    maps = tuple(torch.randn(2, DIMS[stage - 1], 96 // 2**stage, 160 // 2**stage) for stage in config.in_stages)
    assert [out.shape for out in fpn(maps)] == [m.shape for m in maps]


def test_depthwise_has_fewer_weights():
    counts = [
        sum(p.numel() for p in Pafpn(model_config(f"model.fpn.depthwise={value}").fpn, DIMS).parameters())
        for value in ("false", "true")
    ]
    assert counts[1] < counts[0] / 1.5


def test_a_fourth_scale_adds_layers_and_renames_none():
    three, four = (
        Pafpn(model_config(f"model.fpn.in_stages={stages}").fpn, DIMS).state_dict().keys()
        for stages in ("[2,3,4]", "[1,2,3,4]")
    )
    assert three < four
    assert {name.split(".")[0] for name in four - three} == {"reduce2", "top_down1", "downsample1", "bottom_up2"}
