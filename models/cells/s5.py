"""The S5 cell: a diagonal state-space model over time at each cell of a map ("State Space Models for Event Cameras",
CVPR 2024; S5: "Simplified State Space Layers for Sequence Modeling", ICLR 2023).

Maps are one sequence per cell: nothing moves in space. Settings and names of weights are those of
github.com/uzh-rpg/ssms_event_cameras up to the renames in `models.weights`. That code hands the state on from chunk
to chunk and then never uses it; here it is used, unless `carry_state` is false.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from config.schema import S5Config
from models.cells.cell import State
from models.layers.attention import NORM_EPS
from models.layers.kernels import compute_dtype, map_linear
from models.layers.linear import MapLinear
from models.layers.scan import LinearScan

STEP_RANGE = (0.001, 0.1)  # of the time steps at the start of training
NORMAL_WITHIN_2 = 0.8796  # the standard deviation of a normal distribution that is cut off at +-2


class S5Block(nn.Module):
    """Norm, state-space model and a gated MLP. The residuals are normalised inputs: nothing passes the norms by.

    `a = norm1(x)`, `b = norm2(gelu(ssm(a)) + a)`, output `values * gelu(gates) -> fc2, + b`, with values and gates the
    two halves of `fc1(b)`.
    """

    def __init__(self, dim: int, config: S5Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.ssm = StateSpaceModel(dim, config)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.fc1 = MapLinear(dim, 2 * dim, bias=False)
        self.fc2 = MapLinear(dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "l b h w c"], state: State | None) -> tuple[Float[Tensor, "l b h w c"], State]:
        """Its state is one complex map, [b p h w]."""
        L, B = x.shape[:2]
        # A state adds up over hundreds of frames, and complex numbers have no half precision.
        with torch.autocast(x.device.type, enabled=False):
            normed = self.norm1(x.flatten(0, 1).to(self.norm1.weight.dtype))
            y, state = self.ssm(normed, B, state)
            residual = self.norm2(F.gelu(y) + normed)
        values, gates = self.fc1(residual).chunk(2, dim=-1)
        output = self.fc2(values * F.gelu(gates)) + residual
        return output.to(compute_dtype(self.fc2.weight)).unflatten(0, (L, B)), state


class StateSpaceModel(nn.Module):
    """x_t = A x_(t-1) + B u_t and y_t = Re(C x_t) + D u_t, with A diagonal and A, B, C complex.

    A and B are those of the continuous system dx/dt = `eigenvalues` x + `input_matrix` u at time steps of
    `step_scale * exp(log_step)`, a step for each mode. Complex weights have real and imaginary part as last axis.
    """

    def __init__(self, dim: int, config: S5Config) -> None:
        super().__init__()
        self.config = config
        modes = config.state_dim or dim
        eigenvalues, vectors = hippo_modes(modes)
        self.eigenvalues = _parameter(eigenvalues)
        self.input_matrix = _parameter(vectors.mH @ _truncated_normal(modes, dim, fan=modes).to(vectors.dtype))
        output_matrix = torch.complex(*(_truncated_normal(dim, modes, fan=dim * modes) for _ in "ri")) @ vectors
        self.skip = nn.Parameter(torch.rand(dim))
        self.log_step = nn.Parameter(torch.empty(modes).uniform_(*map(math.log, STEP_RANGE)))
        if config.bandlimit is not None:
            output_matrix = output_matrix.masked_fill(self._frequencies(eigenvalues) >= config.bandlimit / 2, 0)
        self.output_matrix = _parameter(output_matrix)

    def forward(
        self, u: Float[Tensor, "n h w c"], num_lanes: int, state: State | None
    ) -> tuple[Float[Tensor, "n h w c"], State]:
        height, width, modes = *u.shape[1:3], len(self.log_step)
        factor, input_matrix = self._discretized()
        if state is None or not self.config.carry_state:
            before = factor.new_zeros(num_lanes * height * width, modes)
        else:
            before = state[0].to(factor.dtype).permute(0, 2, 3, 1).reshape(-1, modes)
        x = LinearScan.apply(u, torch.view_as_real(input_matrix).transpose(1, 2).flatten(0, 1), factor, before)
        # Re(C x) = Re C Re x - Im C Im x
        output_matrix = torch.stack((self.output_matrix[..., 0], -self.output_matrix[..., 1]), dim=-1).flatten(1)
        y = map_linear(torch.view_as_real(x).reshape(*u.shape[:-1], -1), output_matrix, None)
        # A copy, or it would keep the x of all frames.
        last = x[-1].clone().view(num_lanes, height, width, modes).permute(0, 3, 1, 2)
        return y + self.skip * u, (last,)

    def _discretized(self) -> tuple[Complex[Tensor, " p"], Complex[Tensor, "p c"]]:
        """A and B."""
        eigenvalues, input_matrix = torch.view_as_complex(self.eigenvalues), torch.view_as_complex(self.input_matrix)
        step = self.config.step_scale * self.log_step.exp()
        if self.config.discretization == "zoh":
            factor = (step * eigenvalues).exp()
            return factor, ((factor - 1) / eigenvalues)[:, None] * input_matrix
        inverse = 1 / (1 - step / 2 * eigenvalues)
        return inverse * (1 + step / 2 * eigenvalues), (inverse * step)[:, None] * input_matrix

    def _frequencies(self, eigenvalues: Complex[Tensor, " p"]) -> Float[Tensor, " p"]:
        """Of each mode, in periods per frame."""
        return self.log_step.detach().exp() * eigenvalues.imag.abs() / (2 * math.pi)


def hippo_modes(count: int) -> tuple[Complex[Tensor, " p"], Complex[Tensor, "p p"]]:
    """Eigenvalues, by ascending imaginary part, and eigenvectors of the normal part of the HiPPO-LegS matrix.

    With r_i = sqrt(2 i + 1), S_ij = -[i >= j] r_i r_j + [i = j] i + r_i r_j / 2 is -1/2 I plus a skew-symmetric matrix.
    """
    index = torch.arange(count, dtype=torch.float64)
    outer = (2 * index + 1).sqrt().outer((2 * index + 1).sqrt())
    matrix = outer / 2 - outer.tril() + index.diag()
    imaginary, vectors = torch.linalg.eigh(-1j * matrix)
    return torch.complex(matrix.diagonal().mean().expand(count), imaginary), vectors


def _truncated_normal(rows: int, columns: int, fan: int) -> Float[Tensor, "rows columns"]:
    """Standard deviation 0.77 / sqrt(fan), as in the published code."""
    spread = NORMAL_WITHIN_2 / math.sqrt(fan)
    return nn.init.trunc_normal_(torch.empty(rows, columns), std=spread, a=-2 * spread, b=2 * spread).double()


def _parameter(values: Complex[Tensor, "*shape"]) -> nn.Parameter:
    return nn.Parameter(torch.view_as_real(values.resolve_conj()).float().contiguous())
