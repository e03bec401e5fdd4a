"""From the name in `model.backbone.stage.cell` to a cell."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from config.errors import UserError
from config.schema import StageConfig
from models.cells.cell import State, split_lanes
from models.cells.lstm import Lstm2d
from models.cells.s5 import S5Block
from models.parts import build_own, explained, is_own

KEY = "model.backbone.stage.cell"
OWN = "own"  # begins the names of the weights of a user's own cell
CELLS: dict[str, Callable[..., nn.Module]] = {"lstm": Lstm2d, "s5": S5Block}


def build_cell(dim: int, config: StageConfig) -> nn.Module:
    """The stage's cell, of the settings in the section of its name; or a user's own, `Name(dim, options)`.

    Raises:
        UserError: a user's own cell cannot be imported, or does not keep the contract of `Cell`.
    """
    if is_own(config.cell):
        cell = build_own(config.cell, KEY, config.cell_options, dim, is_module=True)
        _check_contract(cell, dim, config.cell)
        return cell
    return CELLS[config.cell](dim, getattr(config, config.cell))


@torch.no_grad()
def _check_contract(cell: nn.Module, dim: int, name: str) -> None:
    """Let two lanes of three small frames through a new cell, and look at what comes out."""
    was_training = cell.training
    cell.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            x = torch.randn(3, 2, 4, 5, dim)
            together, state = _step(cell, x, None)
            _step(cell, x, state)
            alone, _ = _step(cell, x[:, 1:], None)
            if not torch.allclose(together[:, 1:], alone, rtol=1e-3, atol=1e-4):
                raise ValueError("a lane's output depends on the other lanes of the batch")
            if state:
                _step(cell, x[:, :1], split_lanes(state, 2)[0])
    except Exception as error:
        raise UserError(
            f"{KEY}={name}: does not do what a cell does: {explained(error)}. "
            f"It takes x [L, B, h, w, {dim}] and the state, and gives y of x's shape and the new state"
        ) from error
    cell.train(was_training)


def _step(cell: nn.Module, x: Float[Tensor, "l b h w c"], state: State | None) -> tuple[Tensor, State]:
    result = cell(x, state)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(f"gives a {type(result).__name__}, not a pair of output and state")
    y, after = result
    if not isinstance(y, Tensor) or y.shape != x.shape:
        raise ValueError(f"its output is {list(y.shape) if isinstance(y, Tensor) else y!r} for x {list(x.shape)}")
    if not isinstance(after, tuple) or not all(isinstance(part, Tensor) for part in after):
        raise TypeError("its state is no tuple of tensors")
    wrong = next((part for part in after if part.ndim == 0 or len(part) != x.shape[1]), None)
    if wrong is not None:
        raise ValueError(f"its state has a tensor {list(wrong.shape)}: its first axis is the lane, {x.shape[1]} here")
    return y, after
