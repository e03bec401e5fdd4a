"""Whatever the processor, one definition: all choices against it, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers.kernels import (
    AVX512,
    GPU,
    HALF_ON_CPU,
    OTHER_CPU,
    Kernels,
    Softmax,
    attend,
    attend_fused,
    convolve,
    describe_kernels,
    kernels_for,
    map_linear,
    using,
)
from tests.network import golden_detector, training_boxes, training_features

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2}
DTYPES = [torch.float32, torch.bfloat16]


def with_gradients(function: Callable[..., Tensor], leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Result and gradients of a weighted sum, in float64."""
    result = function(*leaves)
    weights = (1.7 * torch.arange(result.numel(), dtype=torch.float64)).sin().view(result.shape)
    return tuple(x.double() for x in (result, *torch.autograd.grad((result * weights).sum(), leaves)))


def assert_equals_definition(
    function: Callable[..., Tensor],
    definition: Callable[..., Tensor],
    *leaves: Tensor,
    tolerance: float | None = None,
) -> None:
    """The definition computes in float64 from the same numbers."""
    tolerance = tolerance or TOLERANCE[leaves[0].dtype]
    leaves = tuple(leaf.requires_grad_() for leaf in leaves)
    exact = with_gradients(definition, [leaf.detach().double().requires_grad_() for leaf in leaves])
    for value, expected in zip(with_gradients(function, leaves), exact, strict=True):
        assert (value - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", ["product", "convolution"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 12, 20), (7,), (23, 1), ()])
def test_linear_layers(shape: tuple[int, ...], way: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    maps, weight, bias = (torch.randn(*size, dtype=dtype) for size in ((*shape, 6), (10, 6), (10,)))
    # In a bias's gradient what the cells give cancels, and their rounding does not.
    with_bias = 3e-2 if dtype == torch.bfloat16 else None
    with using(linear=way):
        assert_equals_definition(map_linear, lambda x, w, b: x @ w.t() + b, maps, weight, bias, tolerance=with_bias)
        apart = maps.detach().movedim(-1, 0).contiguous().movedim(0, -1)
        assert_equals_definition(lambda x, w: map_linear(x, w, None), lambda x, w: x @ w.t(), apart, weight)


def test_no_cells_give_no_cells() -> None:
    with using(linear="convolution"):
        assert map_linear(torch.empty(0, 4, 5, 6), torch.randn(10, 6), None).shape == (0, 4, 5, 10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", ["product", "convolution"])
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 2)])
def test_convolutions(kernel: int, stride: int, groups: int, way: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    maps, weight = torch.randn(2, 4, 6, 10, dtype=dtype), torch.randn(8, 4 // groups, kernel, kernel, dtype=dtype)

    def definition(x: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(x, w, stride=stride, padding=kernel // 2, groups=groups)

    with using(linear=way):
        assert_equals_definition(lambda x, w: convolve(x, w, None, stride, groups), definition, maps, weight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", ["products", "fused"])
def test_attention(way: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)

    def definition(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1) @ v

    parts = torch.randn(3, 5, 2, 6, 8, dtype=dtype)
    with using(evaluation_attention=way):
        exact = definition(*parts.double())
        assert (attend(*parts).double() - exact).norm() <= TOLERANCE[dtype] * exact.norm()
    with using(attention=way):
        assert_equals_definition(attend, definition, *parts)


@pytest.mark.parametrize("dtype", DTYPES)
def test_fused_attention_in_parts_of_the_grid_limit_is_that_of_all_at_once(dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, 5, 2, 6, 8, dtype=dtype)
    torch.testing.assert_close(attend_fused(q, k, v, grid_limit=5), attend_fused(q, k, v))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_softmax(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    scores = 3 * torch.randn(2, 4, 5, 60, dtype=dtype)
    assert Softmax.apply(scores).dtype == dtype
    assert_equals_definition(Softmax.apply, lambda x: x.exp() / x.exp().sum(dim=-1, keepdim=True), scores)


def loss_gradients_and_predictions() -> tuple[Tensor, ...]:
    """Of the small network whose reference arrays the tests hold."""
    detector, (boxes, box_image) = golden_detector(), training_boxes()
    selected = training_features(detector)
    losses = detector.head.loss(detector.predict(selected), boxes, box_image)
    gradients = torch.autograd.grad(losses["loss"], list(detector.parameters()))
    with torch.no_grad():
        return losses["loss"].detach(), detector.eval().predict(selected).objectness_logits, *gradients


def test_the_network_differs_by_rounding_only() -> None:
    results = []
    for kernels in (GPU, AVX512, HALF_ON_CPU, OTHER_CPU):
        with using(**asdict(kernels)):
            results.append(loss_gradients_and_predictions())
    for loss, *others in results[1:]:
        assert loss.item() == pytest.approx(results[0][0].item(), rel=1e-6)
        for other, expected in zip(others, results[0][1:], strict=True):
            assert (other - expected).norm() <= 1e-4 * expected.norm() + 1e-7


@pytest.mark.parametrize(
    ("device", "dtype", "capability", "kernels"),
    [
        ("cpu", torch.float32, "AVX512", AVX512),
        ("cpu", torch.float32, "AVX2", OTHER_CPU),
        ("cpu", torch.float32, "DEFAULT", OTHER_CPU),
        ("cpu", torch.bfloat16, "AVX2", HALF_ON_CPU),
        ("cpu", torch.bfloat16, "AVX512", HALF_ON_CPU),
        ("cpu", torch.bfloat16, "SVE256", HALF_ON_CPU),
        ("cuda", torch.float32, "AVX512", GPU),
        ("cuda", torch.float16, "AVX2", GPU),
    ],
)
def test_choices_by_device_type_and_capability(
    device: str, dtype: torch.dtype, capability: str, kernels: Kernels
) -> None:
    assert kernels_for(device, dtype, capability) == kernels


def test_a_choice_holds_within_its_block_and_unknown_names_end_there() -> None:
    before = kernels_for("cpu", torch.float32)
    with using(attention="fused"), using(attention="products", linear="product"):
        assert kernels_for("cuda", torch.float32).attention == "products"
    assert kernels_for("cpu", torch.float32) == before
    with pytest.raises(TypeError), using(atention="fused"):
        pass


def test_the_description_names_capability_and_choices() -> None:
    described = describe_kernels("cpu", torch.bfloat16)
    assert described["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert described["linear"] == "convolution"
    assert described.keys() == {"cpu_capability", *(field.name for field in fields(Kernels))}
