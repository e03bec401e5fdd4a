import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.layers.linear import MapLinear


def map_linear_like(plain):
    layer = MapLinear(plain.in_features, plain.out_features, plain.bias is not None)
    layer.load_state_dict(plain.state_dict())
    return layer.to(plain.weight.dtype)


def test_same_seed_same_weights_as_a_linear_layer():
    layers = []
    for kind in (nn.Linear, MapLinear):
        torch.manual_seed(0)
        layers.append(kind(6, 10).state_dict())
    assert all(torch.equal(layers[0][name], value) for name, value in layers[1].items())


@pytest.mark.parametrize("with_scale", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 4, 5), (7,), ()])
def test_output_and_gradients_are_those_of_a_linear_layer_times_the_scale(shape, bias, with_scale):
    torch.manual_seed(0)
    plain = nn.Linear(6, 10, bias).double()
    layer = map_linear_like(plain)
    maps = torch.randn(*shape, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(*shape, 10, dtype=torch.float64)
    scale = torch.randn(10, dtype=torch.float64, requires_grad=True)
    leaves = [maps, *([scale] if with_scale else [])]
    outs = (plain(maps) * scale, layer(maps, scale)) if with_scale else (plain(maps), layer(maps))
    results = [
        (out, *torch.autograd.grad((out * weights).sum(), [*leaves, *run.parameters()]))
        for run, out in zip((plain, layer), outs, strict=True)
    ]
    torch.testing.assert_close(results[1], results[0])


def test_maps_whose_channels_lie_apart():
    maps, layer = torch.randn(2, 6, 4, 5).permute(0, 2, 3, 1), nn.Linear(6, 3)
    torch.testing.assert_close(map_linear_like(layer)(maps), F.linear(maps, layer.weight, layer.bias))


def test_float16_keeps_a_scale_that_its_numbers_cannot_hold():
    """Weights of 0.1 times 1e-6 would have one or two of their bits left."""
    torch.manual_seed(0)
    layer, maps, scale = MapLinear(64, 16), torch.randn(1, 2, 3, 64), torch.full((16,), 1e-6, requires_grad=True)
    exact = layer(maps, scale)
    with torch.autocast("cpu", torch.float16):
        result = layer(maps, scale)
    torch.testing.assert_close(result, exact, atol=1e-8, rtol=1e-2)
    exact_gradient, gradient = (torch.autograd.grad(out.sum(), scale)[0] for out in (exact, result))
    assert (gradient - exact_gradient).norm() < 1e-2 * exact_gradient.norm()
