"""The contract of cells, and that each choice keeps it."""

from __future__ import annotations

import pytest
import torch

from models.cells.build import CELLS, build_cell
from models.cells.cell import join_lanes, split_lanes
from tests.network import model_config


def test_lanes_are_split_and_joined_whatever_the_state_is() -> None:
    state = (torch.arange(6.0).view(3, 2), torch.complex(torch.ones(3, 1, 4), torch.arange(3.0).view(3, 1, 1)))
    lanes = split_lanes(state, 3)
    assert [[len(part) for part in lane] for lane in lanes] == [[1, 1]] * 3
    for part, joined in zip(state, join_lanes(lanes), strict=True):
        assert torch.equal(part, joined)
    assert split_lanes(None, 2) == [None, None]
    assert join_lanes(split_lanes((), 2)) == ()


@torch.no_grad()
@pytest.mark.parametrize("name", CELLS)
def test_every_cell_keeps_the_contract(name: str) -> None:
    """Two chunks are one, zeros are the start, and no lane sees another."""
    torch.manual_seed(0)
    cell = build_cell(8, model_config(f"model.backbone.stage.cell={name}").backbone.stage).double().eval()
    x = torch.randn(5, 2, 3, 4, 8, dtype=torch.float64)
    whole, last = cell(x, None)
    first, state = cell(x[:2], None)
    second, after = cell(x[2:], state)
    assert whole.shape == x.shape
    torch.testing.assert_close(torch.cat((first, second)), whole)
    torch.testing.assert_close(after, last)
    zeros = tuple(torch.zeros_like(part) for part in state)
    torch.testing.assert_close(cell(x, zeros)[0], whole)
    lane, _ = cell(x[2:, 1:], split_lanes(state, 2)[1])
    torch.testing.assert_close(lane, second[:, 1:])
