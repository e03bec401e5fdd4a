import pytest
import torch

from models.convolution import ConvBlock


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
