import pytest
import torch
from torch import nn

from models.layers.attention import (
    GRID,
    WINDOW,
    AttentionBlock,
    MaxVitBlock,
    PartitionedSelfAttention,
)
from tests.network import model_config

PARTITION = (2, 3)


@pytest.fixture
def config():
    return model_config("model.backbone.stage.attention.ls_init_value=0.5").backbone.stage.attention


def attention_of_one_cell(layer, x, y, column, cells):
    """The definition: cell (y, column) looks at `cells`, one head after the other."""
    dim = x.shape[-1] // layer.heads
    packed = layer.qkv(x).view(*x.shape[:2], layer.heads, 3, dim)
    heads = []
    for head in range(layer.heads):
        query = packed[y, column, head, 0]
        keys = torch.stack([packed[i, j, head, 1] for i, j in cells])
        values = torch.stack([packed[i, j, head, 2] for i, j in cells])
        heads.append((keys @ query / dim**0.5).softmax(0) @ values)
    return layer.proj(torch.cat(heads))


def window_of(y, column, height, width):
    top, left = y // 2 * 2, column // 3 * 3
    return [(i, j) for i in range(top, top + 2) for j in range(left, left + 3)]


def grid_of(y, column, height, width):
    row_step, column_step = height // 2, width // 3
    return [
        (i, j) for i in range(height) for j in range(width) if (i - y) % row_step == (j - column) % column_step == 0
    ]


@pytest.mark.parametrize(("kind", "cells_of"), [(WINDOW, window_of), (GRID, grid_of)])
@pytest.mark.parametrize("with_gradient", [True, False])
def test_cells_attend_to_their_window_or_grid(config, kind, cells_of, with_gradient):
    torch.manual_seed(0)
    layer = PartitionedSelfAttention(16, kind, PARTITION, config).double().requires_grad_(with_gradient)
    maps = torch.randn(2, 8, 9, 16, dtype=torch.float64)
    result = layer(maps)
    for y, column in ((0, 0), (3, 5), (7, 8)):
        cells = cells_of(y, column, 8, 9)
        assert len(cells) == 6
        expected = attention_of_one_cell(layer, maps[1], y, column, cells)
        torch.testing.assert_close(result[1, y, column], expected)


def test_first_window_attention_has_no_first_norm(config):
    block = MaxVitBlock(16, PARTITION, config, skip_first_norm=True)
    assert isinstance(block.window.norm1, nn.Identity)
    assert isinstance(block.grid.norm1, nn.LayerNorm)


def test_layer_scale_weighs_what_a_block_adds(config):
    """With a scale of zero only the input is left."""
    block = MaxVitBlock(16, PARTITION, config, skip_first_norm=False)
    maps = torch.randn(1, 4, 6, 16)
    assert not torch.equal(block(maps), maps)
    for layer in (block.window, block.grid):
        layer.ls1.gamma.data.zero_()
        layer.ls2.gamma.data.zero_()
    assert torch.equal(block(maps), maps)


@pytest.mark.parametrize("gated", [True, False])
def test_layer_scale_multiplies_maps_forwards_and_backwards(config, gated):
    """The weights of the layer before it are scaled instead."""
    torch.manual_seed(0)
    config = config.model_copy(update={"mlp_gated": gated})
    block = AttentionBlock(16, WINDOW, PARTITION, config, skip_first_norm=False).double()
    for layer in (block.ls1, block.ls2):
        nn.init.normal_(layer.gamma)
    maps, weights = torch.randn(2, 2, 4, 6, 16, dtype=torch.float64)

    def definition(x):
        x = x + block.attention(block.norm1(x)) * block.ls1.gamma
        return x + block.mlp(block.norm2(x)) * block.ls2.gamma

    outs = block(maps), definition(maps)
    results = [(out, *torch.autograd.grad((out * weights).sum(), list(block.parameters()))) for out in outs]
    torch.testing.assert_close(*results)


def test_drop_path_drops_whole_images_in_training_only(config):
    block = AttentionBlock(16, WINDOW, PARTITION, config.model_copy(update={"drop_path": 0.5}), skip_first_norm=False)
    torch.manual_seed(0)
    maps = torch.randn(64, 2, 3, 16)
    unchanged = (block.train()(maps) == maps).flatten(1).all(dim=1)
    assert 0 < unchanged.sum() < 64
    assert not (block.eval()(maps) == maps).flatten(1).all(dim=1).any()


def test_gated_mlp_multiplies_values_with_gates_at_two_thirds_of_the_width(config):
    """GLU (arXiv:2002.05202): 4 * 96 = 384 channels become 256 values and 256 gates."""
    gated = config.model_copy(update={"mlp_gated": True, "mlp_activation": "relu"})
    mlp = AttentionBlock(96, WINDOW, PARTITION, gated, skip_first_norm=False).mlp
    x = torch.randn(5, 96)
    values, gates = mlp.fc1(x).chunk(2, dim=1)
    assert values.shape == (5, 256)
    torch.testing.assert_close(mlp(x), mlp.fc2(values * gates.relu()))
