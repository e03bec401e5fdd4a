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


@torch.no_grad()
def test_maps_of_the_reference():
    detector = golden_detector().eval()
    features, _ = detector.encode(frames_of_call(1), None)
    selected = detector.select(features, frame_indices(golden("model_detect")["detect_sel"]))
    for level, maps in enumerate(detector.fpn(selected)):
        assert largest_difference(maps, golden("model_detect")[f"fpn_out{level}"]) < 2e-5


@pytest.mark.parametrize(("depth", "bottlenecks"), [(0.33, 1), (0.67, 2), (1.0, 3)])
def test_depth_counts_bottlenecks_in_thirds(depth, bottlenecks):
    fpn = Pafpn(model_config(f"model.fpn.depth={depth}").fpn, (8, 16, 32))
    assert {len(getattr(fpn, name).bottlenecks) for name in ("top_down3", "top_down2", "bottom_up3", "bottom_up4")} == {
        bottlenecks
    }


@pytest.mark.parametrize("depthwise", ["false", "true"])
def test_every_map_keeps_its_size(depthwise):
    fpn = Pafpn(model_config(f"model.fpn.depthwise={depthwise}").fpn, (8, 16, 32))
    maps = torch.randn(2, 8, 12, 20), torch.randn(2, 16, 6, 10), torch.randn(2, 32, 3, 5)
    assert [out.shape for out in fpn(maps)] == [m.shape for m in maps]


def test_depthwise_has_fewer_weights():
    counts = [
        sum(p.numel() for p in Pafpn(model_config(f"model.fpn.depthwise={value}").fpn, (8, 16, 32)).parameters())
        for value in ("false", "true")
    ]
    assert counts[1] < counts[0] / 1.5
