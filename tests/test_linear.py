import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.linear import MapLinear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 4, 5), (7,), ()])
def test_output_and_gradients_are_those_of_a_linear_layer(shape, bias):
    torch.manual_seed(0)
    plain = nn.Linear(6, 10, bias).double()
    layer = MapLinear.like(plain)
    maps = torch.randn(*shape, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(*shape, 10, dtype=torch.float64)
    results = []
    for run in (plain, layer):
        out = run(maps)
        gradients = torch.autograd.grad((out * weights).sum(), [maps, *run.parameters()])
        results.append((out, *gradients))
    torch.testing.assert_close(results[1], results[0])


def test_maps_whose_channels_lie_apart():
    maps, layer = torch.randn(2, 6, 4, 5).permute(0, 2, 3, 1), nn.Linear(6, 3)
    torch.testing.assert_close(MapLinear.like(layer)(maps), F.linear(maps, layer.weight, layer.bias))
