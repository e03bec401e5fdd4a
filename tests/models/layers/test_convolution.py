import pytest
import torch

from models.layers.convolution import ConvBlock, spatial_conv


def test_stride_halves_the_map_and_odd_kernels_keep_it():
    maps = torch.zeros(2, 4, 6, 10)
    assert ConvBlock(4, 8, 3, "silu")(maps).shape == (2, 8, 6, 10)
    assert ConvBlock(4, 8, 3, "silu", stride=2)(maps).shape == (2, 8, 3, 5)


def test_depthwise_convolution_sees_the_same_neighbours_with_fewer_weights():
    full = spatial_conv(16, 16, 3, "silu", depthwise=False)
    cheap = spatial_conv(16, 16, 3, "silu", depthwise=True)
    weights = [sum(p.numel() for p in block.parameters() if p.dim() == 4) for block in (full, cheap)]
    assert weights == [16 * 16 * 9, 16 * 9 + 16 * 16]
    maps = torch.rand(1, 16, 5, 5, requires_grad=True)
    cheap.eval()(maps)[:, :, 2, 2].sum().backward()
    seen = maps.grad.abs().sum(dim=(0, 1)) > 0
    assert seen.sum() == 9
    assert seen[1:4, 1:4].all()


def test_activations_differ_on_negative_inputs():
    x = torch.full((1, 1, 2, 2), -2.0)
    values = {name: ConvBlock(1, 1, 1, name).act(x.clone())[0, 0, 0, 0].item() for name in ("silu", "relu", "lrelu")}
    assert values["relu"] == 0
    assert round(values["lrelu"], 4) == -0.2
    assert round(values["silu"], 4) == -0.2384


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (1, 2), (4, 1)])
def test_evaluation_gives_convolution_norm_and_activation(groups, stride):
    """The norm is folded into the weights there; statistics and weights may change between two calls."""
    torch.manual_seed(0)
    block = ConvBlock(4, 8, 3, "silu", stride=stride, groups=groups).double()
    maps = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    for _ in range(2):
        block.train()(maps)  # moves the statistics
        with torch.no_grad():
            block.bn.weight.normal_()
            block.bn.bias.normal_()
        block.eval()
        expected = torch.nn.functional.silu(block.bn(block.conv(maps)))
        torch.testing.assert_close(block(maps), expected)
