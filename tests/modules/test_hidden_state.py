from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from models.cells.cell import State
from modules.hidden_state import HiddenState


def state_of(*values: float) -> list[State]:
    """Two stages whose lane i has the value values[i] everywhere, in tensors of several shapes and types."""
    value = torch.tensor(values)
    hidden = value.view(-1, 1, 1, 1).repeat(1, 2, 3, 4)
    return [(hidden, -hidden), (torch.complex(value, -value)[:, None].repeat(1, 5),)]


def lanes(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


def value_of(stages: list[State]) -> list[float]:
    (hidden, minus), (complex_part,) = stages
    torch.testing.assert_close(hidden, -minus, equal_nan=True)
    torch.testing.assert_close(complex_part, torch.complex(hidden, minus)[:, 0, 0, :1].expand(-1, 5), equal_nan=True)
    return stages[0][0][:, 0, 0, 0].tolist()


def test_a_lane_gets_back_what_it_left_unless_its_sequence_starts() -> None:
    state = HiddenState()
    assert state.enter(torch.tensor([True, True]), lanes(0, 1)) is None
    state.leave(state_of(1.0, 2.0), lanes(0, 1))
    assert value_of(state.enter(torch.tensor([False, True]), lanes(0, 1))) == [1.0, 0.0]


def test_a_start_drops_a_state_that_is_not_finite() -> None:
    state = HiddenState()
    state.leave(state_of(float("nan"), 2.0), lanes(0, 1))
    assert value_of(state.enter(torch.tensor([True, False]), lanes(0, 1))) == [0.0, 2.0]


def test_rows_are_found_by_lane_when_others_have_run_out() -> None:
    state = HiddenState()
    state.leave(state_of(1.0, 2.0, 3.0), lanes(0, 1, 2))
    assert value_of(state.enter(torch.tensor([False, False]), lanes(0, 2))) == [1.0, 3.0]
    state.leave(state_of(10.0, 30.0), lanes(0, 2))
    assert value_of(state.enter(torch.tensor([False]), lanes(2))) == [30.0]


def test_a_restored_state_moves_to_the_device_of_the_batch() -> None:
    """Fewer lanes than before write into what was restored."""
    state = HiddenState()
    state.load_state_dict(state_of(1.0, 2.0, 3.0), like=state_of(0.0))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        entered = state.enter(torch.tensor([False, False]), lanes(0, 2))
        assert entered[0][0].device.type == "cuda"
        state.leave(entered, lanes(0, 2))
        state.reset_where(torch.tensor(False))
        assert state.enter(torch.tensor([False] * 3), lanes(0, 1, 2))[0][0].device.type == "cuda"


def test_gradients_never_cross_a_batch() -> None:
    state = HiddenState()
    hidden = torch.ones(1, 1, 1, 1, requires_grad=True)
    state.leave([(hidden * 2, hidden * -2)], lanes(0))
    assert not state.enter(torch.tensor([False]), lanes(0))[0][0].requires_grad


def test_a_flag_zeroes_all_lanes() -> None:
    state = HiddenState()
    state.leave(state_of(1.0, float("inf")), lanes(0, 1))
    state.reset_where(torch.tensor(False))
    assert value_of(state.enter(torch.tensor([False, False]), lanes(0, 1))) == [1.0, float("inf")]
    state.reset_where(torch.tensor(True))
    assert value_of(state.enter(torch.tensor([False, False]), lanes(0, 1))) == [0.0, 0.0]


def test_it_survives_a_checkpoint(tmp_path: Path) -> None:
    state, restored = HiddenState(), HiddenState()
    state.leave(state_of(1.0, 2.0), lanes(0, 1))
    path = tmp_path / "state.ckpt"
    torch.save(state.state_dict(), path)
    restored.load_state_dict(torch.load(path, weights_only=True), like=state_of(0.0))
    assert value_of(restored.enter(torch.tensor([False, False]), lanes(0, 1))) == [1.0, 2.0]
    assert restored.num_lanes == 2


def test_states_of_another_resolution_or_with_nan_start_anew_and_it_is_said() -> None:
    wider = [tuple(part.repeat_interleave(2, dim=-1) for part in stage) for stage in state_of(0.0)]
    for given, like in ((state_of(1.0, 2.0), wider), (state_of(1.0, float("nan")), state_of(0.0))):
        state = HiddenState()
        with pytest.warns(UserWarning, match="all lanes start anew"):
            state.load_state_dict(given, like)
        assert state.enter(torch.tensor([False, False]), lanes(0, 1)) is None


def test_a_checkpoint_holds_no_more_than_the_state() -> None:
    """A cell may give a view of much more."""
    state = HiddenState()
    state.leave([(torch.zeros(100, 1, 3)[-1],)], lanes(0))
    ((part,),) = state.state_dict()
    assert part.untyped_storage().nbytes() == part.nbytes


def test_what_a_cell_gave_is_not_written_to() -> None:
    state, given = HiddenState(), state_of(1.0, 2.0)
    state.leave(given, lanes(0, 1))
    state.leave(state_of(10.0), lanes(1))
    assert value_of(given) == [1.0, 2.0]
    assert value_of(state.enter(torch.tensor([False, False]), lanes(0, 1))) == [1.0, 10.0]


def test_a_cell_without_a_state_starts_anew_with_each_batch() -> None:
    state = HiddenState()
    state.leave([()], lanes(0, 1))
    assert state.enter(torch.tensor([False, False]), lanes(0, 1)) is None
