"""Linear recurrences over time, all channels independent of each other."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from models.layers.kernels import map_linear


class LinearScan(torch.autograd.Function):
    """x_t = factor * x_(t-1) + weight u_t for t = 1 .. L, from x_0 = `state`; the x of all steps.

    Complex numbers stand in the rows of `weight` as real and imaginary part, one after the other. The products
    `weight u_t` of all frames are one matrix product, and each x takes the place of its product; autograd's own way
    would keep the x twice. Only one multiplication per frame walks over time, a small part of the whole. Forms in
    log L steps, or as a product with all powers of the factor, go over memory more often, and are slower on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any,
        u: Float[Tensor, "n h w c"],
        weight: Float[Tensor, "two_p c"],
        factor: Complex[Tensor, " p"],
        state: Complex[Tensor, "cells p"],
    ) -> Complex[Tensor, "l cells p"]:
        product = map_linear(u, weight, None)
        x = torch.view_as_complex(product.reshape(-1, *state.shape, 2))
        before = state
        for step in x.unbind(0):
            before = step.addcmul_(factor, before)
        ctx.save_for_backward(u, weight, factor, state, x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Complex[Tensor, "l cells p"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same recurrence, backwards and with the conjugate factor, on what reaches each x."""
        (gradient,) = gradients
        u, weight, factor, state, x = ctx.saved_tensors
        backwards = factor.conj().resolve_conj()
        of_x = torch.empty_like(gradient, memory_format=torch.contiguous_format)
        of_factor = torch.zeros_like(state)
        for t in reversed(range(len(x))):
            if t == len(x) - 1:
                of_x[t] = gradient[t]
            else:
                torch.addcmul(gradient[t], backwards, of_x[t + 1], out=of_x[t])
            of_factor.addcmul_(of_x[t], (x[t - 1] if t else state).conj())
        of_product = torch.view_as_real(of_x).reshape(*u.shape[:-1], -1)
        of_u = map_linear(of_product, weight.t(), None)
        of_weight = of_product.flatten(0, -2).t() @ u.flatten(0, -2)
        return of_u, of_weight, of_factor.sum(dim=0), backwards * of_x[0]
