"""Every choice that depends on the processor: which of several equal computations the network takes.

The choices follow from what PyTorch tells of the processor and from the type that products compute in, never from a
stopwatch or the number of threads: a machine always chooses the same, so that a resumed run, or a validation, goes on
to the bit. Which is fastest where was measured: docs/measured.md. `using` sets a choice, for tests and measurements.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal, get_args, get_type_hints

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor


@dataclass(frozen=True)
class Kernels:
    """Ways to compute the same; results differ in rounding only."""

    linear: Literal["product", "convolution"]  # of maps: a matrix product, or a 1x1 convolution by oneDNN
    attention: Literal["products", "fused"]  # two products around a softmax of our own, or PyTorch's kernel
    evaluation_attention: Literal["products", "fused"]  # the same where nothing goes backwards
    frames: Literal["channels_last", "channels_first"]  # how the first convolution gets them
    layer_scale: Literal["weights", "maps"]  # what it multiplies: the weights of the layer before, or its output
    batch_norm: Literal["folded", "apart"]  # in evaluation: folded into the convolution's weights or not


GPU = Kernels("product", "fused", "fused", "channels_last", "maps", "apart")
AVX512 = Kernels("convolution", "products", "fused", "channels_last", "weights", "folded")
HALF_ON_CPU = replace(AVX512, evaluation_attention="products")
OTHER_CPU = Kernels("product", "fused", "fused", "channels_first", "weights", "folded")

_chosen: dict[str, str] = {}  # by `using`


def kernels_for(device: str, dtype: torch.dtype, capability: str | None = None) -> Kernels:
    """The choices for a device's type, the type of products, and a CPU's capability (None: this one's)."""
    if device != "cpu":
        kernels = GPU
    elif dtype in (torch.bfloat16, torch.float16):
        kernels = HALF_ON_CPU
    elif (capability or cpu_capability()).startswith("AVX512"):
        kernels = AVX512
    else:
        kernels = OTHER_CPU
    return replace(kernels, **_chosen) if _chosen else kernels  # type: ignore[bad-argument-type]


@cache
def cpu_capability() -> str:
    """AVX512, AVX2, DEFAULT or another of PyTorch's names: what its own kernels use of this processor."""
    return torch.backends.cpu.get_cpu_capability()


def describe_kernels(device: str, dtype: torch.dtype) -> dict[str, str]:
    """The choices by name, and the capability that they follow from."""
    return {"cpu_capability": cpu_capability(), **asdict(kernels_for(device, dtype))}


def other_ways(kernels: Kernels) -> list[tuple[str, str]]:
    """Choice and way, of all that were not chosen."""
    hints = get_type_hints(Kernels)
    return [(name, way) for name, taken in asdict(kernels).items() for way in get_args(hints[name]) if way != taken]


@contextmanager
def using(**choices: str) -> Generator[None]:
    """Take these choices, whatever the processor; with the backward passes of what is computed meanwhile inside."""
    replace(GPU, **choices)  # type: ignore[bad-argument-type]  # a name that is none ends here
    before = dict(_chosen)
    _chosen.update(choices)
    try:
        yield
    finally:
        _chosen.clear()
        _chosen.update(before)


def compute_dtype(weight: Tensor) -> torch.dtype:
    """What matrix products with `weight` compute in: its own type, or autocast's."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def chosen(weight: Tensor) -> Kernels:
    """The choices for products with `weight`."""
    return kernels_for(weight.device.type, compute_dtype(weight))


def map_linear(
    maps: Float[Tensor, "*cells c_in"], weight: Float[Tensor, "c_out c_in"], bias: Float[Tensor, " c_out"] | None
) -> Float[Tensor, "*cells c_out"]:
    """F.linear on the channels of every cell."""
    if chosen(weight).linear == "product" or maps.numel() == 0:
        return F.linear(maps, weight, bias)
    # With fewer than 16 images PyTorch takes a slow way of its own if there is but one thread, so cells are dealt out
    # to 16 or more; a 1x1 convolution does not mind which cells are neighbours.
    cells = math.prod(maps.shape[:-1])
    images = next((count for count in range(16, 33) if cells % count == 0), cells)
    rows = maps.reshape(images, 1, cells // images, maps.shape[-1])
    result = F.conv2d(rows.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    return result.reshape(*maps.shape[:-1], len(weight))


def convolve(
    x: Float[Tensor, "n c_in h_in w_in"],
    weight: Float[Tensor, "c_out c_group k k"],
    bias: Float[Tensor, " c_out"] | None,
    stride: int,
    groups: int,
) -> Float[Tensor, "n c_out h w"]:
    """F.conv2d with as much padding as keeps the map's size up to the stride. 1x1 kernels are linear layers of maps."""
    kernel = weight.shape[-1]
    if x.device.type == "cpu" and kernel == stride == groups == 1:
        return map_linear(x.permute(0, 2, 3, 1), weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias, stride, kernel // 2, groups=groups)


def lay_out_frames(frames: Num[Tensor, "n c h w"], weight: Tensor) -> Num[Tensor, "n c h w"]:
    """Frames as the convolution with `weight` computes them fastest; maps of other stages are channels-last anyway."""
    return frames.contiguous(memory_format=torch.channels_last) if chosen(weight).frames == "channels_last" else frames


def attend(
    q: Float[Tensor, "g heads t d"], k: Float[Tensor, "g heads t d"], v: Float[Tensor, "g heads t d"]
) -> Float[Tensor, "g heads t d"]:
    """softmax(q k^T / sqrt(d)) v within each of g groups of t tokens."""
    kernels = kernels_for(q.device.type, q.dtype)
    goes_backwards = q.requires_grad or k.requires_grad or v.requires_grad
    if (kernels.attention if goes_backwards else kernels.evaluation_attention) == "fused":
        return attend_fused(q, k, v)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return Softmax.apply(scores) @ v


class Softmax(torch.autograd.Function):
    """Softmax over the last dimension, forwards in float32, kept and differentiated in the type of its input.

    PyTorch's own takes 1.6 times as long forwards in bfloat16, as rows of 60 do not fill its vectors, and goes
    backwards in float32 if it is asked for a float32 result. This saves a fifth of `attend`'s time in bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, scores: Float[Tensor, "*rows t"]) -> Float[Tensor, "*rows t"]:
        result = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Float[Tensor, "*rows t"]) -> Float[Tensor, "*rows t"]:
        (gradient,), (result,) = gradients, ctx.saved_tensors
        return torch.ops.aten._softmax_backward_data(gradient, result, -1, result.dtype)


def attend_fused(
    q: Float[Tensor, "g heads t d"],
    k: Float[Tensor, "g heads t d"],
    v: Float[Tensor, "g heads t d"],
    grid_limit: int = 65_535,
) -> Float[Tensor, "g heads t d"]:
    """The same by PyTorch's kernels, which end with "invalid configuration argument" beyond CUDA's grid limit."""
    most = grid_limit // q.shape[1]
    parts = zip(q.split(most), k.split(most), v.split(most), strict=True)
    attended = [F.scaled_dot_product_attention(*part) for part in parts]
    return attended[0] if len(attended) == 1 else torch.cat(attended)
