import pytest
import torch
import torch.nn.functional as F

from config.schema import LstmConfig
from models.cells.lstm import Lstm2d
from tests.network import golden, golden_tensor, largest_difference

VARIANTS = {
    "plain": LstmConfig(dws_conv=False, dws_conv_only_hidden=True, dws_conv_kernel_size=3, drop_cell_update=0),
    "onlyhidden_k3": LstmConfig(dws_conv=True, dws_conv_only_hidden=True, dws_conv_kernel_size=3, drop_cell_update=0),
    "xh_k3": LstmConfig(dws_conv=True, dws_conv_only_hidden=False, dws_conv_kernel_size=3, drop_cell_update=0),
}


def step_by_step(lstm, x, state):
    """The definition: one frame after the other, everything from cat(x, h)."""
    hidden, cell = state
    outputs = []
    for frame in x.permute(0, 1, 4, 2, 3):
        mixed = hidden
        if lstm.depthwise is not None and lstm.depthwise.in_channels == lstm.dim:
            mixed = lstm.depthwise(hidden)
        both = torch.cat((frame, mixed), dim=1)
        if lstm.depthwise is not None and lstm.depthwise.in_channels == 2 * lstm.dim:
            both = lstm.depthwise(both)
        forget, input_, output, cell_input = F.conv2d(both, lstm.gates.weight, lstm.gates.bias).chunk(4, dim=1)
        cell = forget.sigmoid() * cell + input_.sigmoid() * cell_input.tanh()
        hidden = output.sigmoid() * cell.tanh()
        outputs.append(hidden.permute(0, 2, 3, 1))
    return torch.stack(outputs), (hidden, cell)


def random_input(num_frames, dim=6):
    torch.manual_seed(num_frames)
    x = torch.randn(num_frames, 2, 5, 7, dim, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.randn(2, dim, 5, 7, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return x, state


@pytest.mark.parametrize("variant", ["onlyhidden_k3", "xh_k3"])
def test_conv_lstm_gives_the_reference_states(variant):
    lstm = Lstm2d(6, VARIANTS[variant])
    names = {"gates": "conv1x1", "depthwise": "conv3x3_dws"}
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            getattr(getattr(lstm, ours), kind).data = golden_tensor("lstm_dws", f"{variant}__{theirs}.{kind}")
    x = golden_tensor("lstm_dws", f"{variant}__x").permute(0, 1, 3, 4, 2)
    hidden, _ = lstm(x, None)
    assert largest_difference(hidden.permute(0, 1, 4, 2, 3), golden("lstm_dws")[f"{variant}__h"]) < 2e-6
    for t in range(len(x)):
        _, (_, cell) = lstm(x[: t + 1], None)
        assert largest_difference(cell, golden("lstm_dws")[f"{variant}__c"][t]) < 2e-6


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num_frames", [1, 4])
def test_walk_equals_step_by_step_definition_forward_and_backward(variant, num_frames):
    lstm = Lstm2d(6, VARIANTS[variant]).double()
    x, state = random_input(num_frames)
    leaves = [x, *state, *lstm.parameters()]
    results = []
    for walk in (lambda: lstm(x, state), lambda: step_by_step(lstm, x, state)):
        hidden, (last_hidden, last_cell) = walk()
        loss = (hidden * torch.linspace(0, 1, hidden.numel()).view_as(hidden)).sum() + last_cell.square().sum()
        results.append((hidden, last_hidden, last_cell, *torch.autograd.grad(loss, leaves)))
    for ours, definition in zip(*results, strict=True):
        torch.testing.assert_close(ours, definition)


def test_chunks_of_one_frame_are_as_good_as_one_of_four():
    lstm = Lstm2d(6, VARIANTS["plain"]).double()
    x, state = random_input(4)
    whole, last = lstm(x, state)
    for t in range(4):
        hidden, state = lstm(x[t : t + 1], state)
        torch.testing.assert_close(hidden[0], whole[t])
    torch.testing.assert_close(state, last)


def test_no_state_means_zeros():
    lstm = Lstm2d(6, VARIANTS["onlyhidden_k3"]).double()
    x, state = random_input(2)
    zeros = tuple(torch.zeros_like(s) for s in state)
    torch.testing.assert_close(lstm(x, None), lstm(x, zeros))


def test_cell_state_stays_float32_under_autocast():
    lstm = Lstm2d(6, VARIANTS["plain"])
    x, _ = random_input(1)
    with torch.autocast("cpu", torch.bfloat16):
        _, (hidden, cell) = lstm(x.float(), None)
        _, (hidden, cell) = lstm(x.float(), (hidden, cell))
    assert (hidden.dtype, cell.dtype) == (torch.bfloat16, torch.float32)


def test_dropout_of_the_cell_input_acts_in_training_only():
    lstm = Lstm2d(6, VARIANTS["plain"].model_copy(update={"drop_cell_update": 1.0})).double()
    x, _ = random_input(2)
    _, (_, trained) = lstm.train()(x, None)
    _, (_, evaluated) = lstm.eval()(x, None)
    assert (trained == 0).all()
    assert (evaluated != 0).all()
