"""The S5 cell against arrays of the published code, and against its definition.

Arrays named `published` or `zero` are that code's as it is, which starts every call from a state of zeros; `carry` and
`reset` use the state that was handed on.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from config.schema import S5Config
from models.backbone import RecurrentBackbone, Stage
from models.cells.s5 import S5Block, StateSpaceModel
from models.weights.published_names import rename
from tests.network import golden, golden_tensor, largest_difference, model_config

CONFIG = S5Config(state_dim=None, bandlimit=0.5, discretization="bilinear", step_scale=1.0, carry_state=True)
B, H, W = 2, 4, 6
PREFIX = {"core": "stages.0.s5_block.s5.", "block": "stages.0.s5_block.", "stage": "stages.0.", "backbone": ""}


def with_settings(**settings) -> S5Config:
    return CONFIG.model_copy(update=settings)


def our_name(kind: str, key: str) -> str:
    """Of a parameter of the published core, block, stage or backbone."""
    inside = {"core": "stages.0.s5.ssm.", "block": "stages.0.s5.", "stage": "stages.0.", "backbone": ""}[kind]
    return rename(PREFIX[kind] + key).removeprefix(inside)


def load(module: nn.Module, kind: str, file: str) -> nn.Module:
    """With the arrays' parameters, in float64."""
    arrays = golden(f"s5/{file}")
    weights = {key.removeprefix("param/"): golden_tensor(f"s5/{file}", key) for key in arrays if "param/" in key}
    module.load_state_dict({our_name(kind, key): value for key, value in weights.items()})
    return module.double()


class Core(nn.Module):
    """A state-space model by itself, with the interface of a cell."""

    def __init__(self, dim: int, config: S5Config) -> None:
        super().__init__()
        self.ssm = StateSpaceModel(dim, config)

    def forward(self, x: Tensor, state: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        y, state = self.ssm(x.flatten(0, 1), x.shape[1], state)
        return y.unflatten(0, x.shape[:2]), state


def cell_of(kind: str, config: S5Config = CONFIG) -> nn.Module:
    if kind == "block":
        return load(S5Block(16, config), kind, "block_d16")
    core = Core(16, config)
    core.ssm = load(core.ssm, kind, "core_d16")
    return core


def as_maps(sequences: Tensor) -> Tensor:
    """[b*h*w, l, c] -> [l, b, h, w, c]"""
    return sequences.view(B, H, W, *sequences.shape[1:]).permute(3, 0, 1, 2, 4).double()


def as_state(rows: Tensor) -> Tensor:
    """[b*h*w, p] -> [b, p, h, w]"""
    return rows.view(B, H, W, -1).permute(0, 3, 1, 2).to(torch.complex128)


def array(kind: str, key: str) -> Tensor:
    return golden_tensor(f"s5/{kind}_d16", key)


def assert_as_the_arrays(kind: str, case: str, cell: nn.Module, x: Tensor, state: Tensor | None) -> None:
    """Output, state and, where they are stored, all gradients of a case."""
    x.requires_grad_()
    if state is not None:
        state.requires_grad_()
    y, (after,) = cell(x, None if state is None else (state,))
    assert largest_difference(y, as_maps(array(kind, f"{case}/y"))) < 1e-5
    assert (after - as_state(array(kind, f"{case}/state1"))).abs().max() < 1e-5
    stored = [key for key in golden(f"s5/{kind}_d16") if key.startswith(f"{case}/grad/")]
    if not stored:
        return
    (y * as_maps(array(kind, "in/w10"))[: len(x)]).sum().backward()
    inner = cell.ssm if kind == "core" else cell
    gradients = {name: parameter.grad for name, parameter in inner.named_parameters()}
    for key in stored:
        name = key.removeprefix(f"{case}/grad/")
        if name == "x":
            actual, expected = x.grad, as_maps(array(kind, key))
        elif name == "state0":
            actual, expected = state.grad, as_state(array(kind, key))
        else:
            actual, expected = gradients[our_name(kind, name)], array(kind, key)
        assert (actual - expected).abs().max() < 1e-4, name


def started(kind: str, num_frames: int) -> tuple[Tensor, Tensor]:
    return as_maps(array(kind, "in/x10"))[:num_frames], as_state(array(kind, "in/state0"))


@pytest.mark.parametrize("kind", ["core", "block"])
@pytest.mark.parametrize("num_frames", [1, 5, 10])
def test_from_a_state_as_the_reference(kind: str, num_frames: int) -> None:
    assert_as_the_arrays(kind, f"L{num_frames}_carry", cell_of(kind), *started(kind, num_frames))


@pytest.mark.parametrize("kind", ["core", "block"])
@pytest.mark.parametrize("num_frames", [1, 5])
def test_from_the_start_as_the_reference(kind: str, num_frames: int) -> None:
    assert_as_the_arrays(kind, f"L{num_frames}_zero", cell_of(kind), started(kind, num_frames)[0], None)


@pytest.mark.parametrize("kind", ["core", "block"])
def test_zero_rows_reset_a_lane(kind: str) -> None:
    x, state = started(kind, 5)
    state[1] = 0
    assert_as_the_arrays(kind, "L5_reset", cell_of(kind), x, state)


@pytest.mark.parametrize("kind", ["core", "block"])
@pytest.mark.parametrize(("step_scale", "case"), [(0.5, "L5_scale05"), (2.0, "L5_scale20")])
def test_windows_of_another_length(kind: str, step_scale: float, case: str) -> None:
    assert_as_the_arrays(kind, case, cell_of(kind, with_settings(step_scale=step_scale)), *started(kind, 5))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["core", "block"])
def test_two_chunks_are_one(kind: str) -> None:
    cell = cell_of(kind)
    x, state = started(kind, 10)
    first, between = cell(x[:5], (state,))
    second, after = cell(x[5:], between)
    assert largest_difference(torch.cat((first, second)), as_maps(array(kind, "L10_carry/y"))) < 1e-5
    assert (after[0] - as_state(array(kind, "L10_carry/state1"))).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("kind", ["core", "block"])
def test_published_behaviour_forgets_between_chunks(kind: str) -> None:
    cell = cell_of(kind, with_settings(carry_state=False))
    x, state = started(kind, 10)
    for frames, case in ((slice(0, 10), "L10_published"), (slice(5, 10), "L5second_published")):
        y, (after,) = cell(x[frames], (state,))
        assert largest_difference(y, as_maps(array(kind, f"{case}/y"))) < 1e-5
        assert (after - as_state(array(kind, f"{case}/state1"))).abs().max() < 1e-5
    carried, _ = cell_of(kind)(x[5:], (state,))
    assert largest_difference(y, carried) > 0.1


def stage_config(**settings):
    stage = model_config("model.backbone.stage.cell=s5").backbone.stage
    return stage.model_copy(update={"s5": with_settings(**settings)})


@pytest.mark.parametrize("case", ["L5_none", "L5_carry", "L1_carry", "L5_reset"])
def test_a_whole_stage_as_the_reference(case: str) -> None:
    stage = load(Stage(6, 16, 4, 1, (2, 3), stage_config(), False), "stage", "stage_d16")
    x = array("stage", "in/x").double()[: int(case[1])].requires_grad_()
    state = array("stage", "in/state0").to(torch.complex128)
    if case == "L5_reset":
        state[1] = 0
    state.requires_grad_()
    y, (after,) = stage(x, None if case == "L5_none" else (state,))
    assert largest_difference(y, array("stage", f"{case}/y")) < 1e-5
    assert (after - array("stage", f"{case}/state1")).abs().max() < 1e-5
    if case == "L5_carry":
        (y * array("stage", "in/w")).sum().backward()
        gradients = {name: parameter.grad for name, parameter in stage.named_parameters()}
        gradients |= {"x": x.grad, "state0": state.grad}
        names = [key.removeprefix(f"{case}/grad/") for key in golden("s5/stage_d16") if f"{case}/grad/" in key]
        assert len(names) == len(gradients)
        for name in names:
            difference = gradients[our_name("stage", name)] - array("stage", f"{case}/grad/{name}")
            assert difference.abs().max() < 1e-4, name


def backbone_of(**settings) -> RecurrentBackbone:
    config = model_config(
        "model.backbone.embed_dim=8", "model.backbone.input_channels=4", "dataset.representation.bins=2"
    ).backbone
    config = config.model_copy(update={"stage": stage_config(**settings)})
    return load(RecurrentBackbone(config, (2, 3)), "backbone", "backbone_e8")


def backbone_array(key: str) -> Tensor:
    return golden_tensor("s5/backbone_e8", key)


def assert_features(case: str, features: list[Tensor], state: list[tuple[Tensor, ...]], lanes: slice) -> None:
    for index, (maps, (part,)) in enumerate(zip(features, state, strict=True), start=1):
        assert largest_difference(maps[:, lanes], backbone_array(f"{case}/y{index}")) < 1e-5
        assert (part[lanes] - backbone_array(f"{case}/state1_{index}")).abs().max() < 1e-5


ALL = slice(None)


@torch.no_grad()
def test_a_whole_backbone_in_chunks_with_a_reset_lane_as_the_reference() -> None:
    backbone, frames = backbone_of(), backbone_array("x").double()
    features, state = backbone(frames[:3], None)
    assert_features("chunk1", features, state, ALL)
    assert_features("chunk2_carry", *backbone(frames[3:], state), ALL)
    for (part,) in state:
        part[1] = 0
    assert_features("chunk2_reset", *backbone(frames[3:], state), slice(1, None))


@torch.no_grad()
def test_a_whole_backbone_as_published() -> None:
    backbone, frames = backbone_of(carry_state=False), backbone_array("x").double()
    _, state = backbone(frames[:3], None)
    assert_features("chunk2_published", *backbone(frames[3:], state), ALL)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_a_whole_backbone_as_the_reference(checkpointing: bool) -> None:
    backbone, frames = backbone_of().train(), backbone_array("x").double().requires_grad_()
    for stage in backbone.stages:
        stage.activation_checkpointing = checkpointing
    with torch.no_grad():
        _, state = backbone(frames[:3], None)
    state = [(part.requires_grad_(),) for (part,) in state]
    features, _ = backbone(frames[3:], state)
    sum((maps * backbone_array(f"chunk2_carry/w{k}")).sum() for k, maps in enumerate(features, start=1)).backward()
    gradients = {name: parameter.grad for name, parameter in backbone.named_parameters()}
    gradients |= {"x": frames.grad[3:], **{f"state0_{k}": part.grad for k, (part,) in enumerate(state, start=1)}}
    names = [key.removeprefix("chunk2_carry/grad/") for key in golden("s5/backbone_e8") if "/grad/" in key]
    assert len(names) > 100
    for name in names:
        difference = gradients[our_name("backbone", name)] - backbone_array(f"chunk2_carry/grad/{name}")
        assert difference.abs().max() < 1e-4, name


def slow_ssm(ssm: StateSpaceModel, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The definition: one frame after the other, one row of the map after the other."""
    eigenvalues, input_matrix, output_matrix = (
        torch.view_as_complex(p.detach()) for p in (ssm.eigenvalues, ssm.input_matrix, ssm.output_matrix)
    )
    step = ssm.config.step_scale * ssm.log_step.detach().exp()
    if ssm.config.discretization == "bilinear":
        factor = (1 + step / 2 * eigenvalues) / (1 - step / 2 * eigenvalues)
        gain = step / (1 - step / 2 * eigenvalues)
    else:
        factor = torch.exp(step * eigenvalues)
        gain = (factor - 1) / eigenvalues
    outputs = []
    for frame in u:
        state = factor * state + gain * (frame.to(torch.complex128) @ input_matrix.T)
        outputs.append((state @ output_matrix.T).real + ssm.skip.detach() * frame)
    return torch.stack(outputs), state


@pytest.mark.parametrize("discretization", ["bilinear", "zoh"])
@pytest.mark.parametrize("num_frames", [1, 4])
def test_all_frames_at_once_are_one_after_the_other(discretization: str, num_frames: int) -> None:
    """Fewer modes than channels, too."""
    torch.manual_seed(0)
    core = Core(6, with_settings(state_dim=4, discretization=discretization, step_scale=3.0, bandlimit=None)).double()
    x = torch.randn(num_frames, 2, 3, 5, 6, dtype=torch.float64)
    state = torch.randn(2, 4, 3, 5, dtype=torch.complex128)
    y, (after,) = core(x, (state,))
    expected, expected_after = slow_ssm(core.ssm, x, state.permute(0, 2, 3, 1))
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(after, expected_after.permute(0, 3, 1, 2))


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    core = Core(3, with_settings(bandlimit=None)).double()
    with torch.no_grad():
        core.ssm.log_step.fill_(-0.5)
    inputs = torch.randn(3, 1, 1, 2, 3, dtype=torch.float64), torch.randn(1, 3, 1, 2, dtype=torch.complex128)
    names, parameters = zip(*core.named_parameters(), strict=True)

    def call(x: Tensor, state: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        y, (after,) = torch.func.functional_call(core, dict(zip(names, weights, strict=True)), (x, (state,)))
        return y, after

    leaves = [tensor.detach().requires_grad_() for tensor in (*inputs, *parameters)]
    assert torch.autograd.gradcheck(call, leaves)


@pytest.mark.parametrize("count", [4, 48, 384])
def test_modes_start_as_those_of_hippo(count: int) -> None:
    eigenvalues = StateSpaceModel(count, CONFIG).eigenvalues
    expected = golden("s5/init")[f"hippo/N{count}/Lambda"]
    np.testing.assert_allclose(eigenvalues[:, 0].detach(), expected.real, rtol=1e-5)
    np.testing.assert_allclose(eigenvalues[:, 1].detach(), expected.imag, rtol=1e-5, atol=1e-5)


def test_weights_start_as_in_the_reference() -> None:
    torch.manual_seed(0)
    ssm = StateSpaceModel(32, with_settings(bandlimit=None))
    theirs = {key.rpartition("seq.")[2]: golden_tensor("s5/init", key) for key in golden("s5/init") if "seq." in key}
    for ours, expected in ((ssm.input_matrix, theirs["B"]), (ssm.output_matrix, theirs["C"])):
        assert ours.shape == expected.shape
        assert ours.detach().std(dim=(0, 1)).tolist() == pytest.approx(expected.std(dim=(0, 1)).tolist(), rel=0.1)
    assert 0 < ssm.skip.min() < ssm.skip.max() < 1
    assert math.log(0.001) <= ssm.log_step.min() < ssm.log_step.max() <= math.log(0.1)
    np.testing.assert_allclose(ssm.eigenvalues.detach(), theirs["Lambda"], rtol=1e-5, atol=1e-5)


def test_modes_of_high_frequency_start_silent() -> None:
    """Where a mode turns by at least a quarter of a period in a frame."""
    torch.manual_seed(0)
    ssm = StateSpaceModel(64, CONFIG)
    silent = (ssm.output_matrix == 0).all(dim=2).all(dim=0)
    turns = ssm.log_step.exp() * ssm.eigenvalues[:, 1].abs() / (2 * math.pi)
    assert silent.tolist() == (turns >= 0.25).tolist()
    assert 0 < silent.sum() < 32


def test_a_state_is_kept_in_float32_and_nothing_more_with_it() -> None:
    """Under autocast to bfloat16; of a chunk's states only the last one's memory."""
    block = S5Block(8, CONFIG)
    x = torch.randn(5, 2, 4, 6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        hidden, (state,) = block(x, None)
        again, _ = block(x, (state,))
    exact, (exact_state,) = block(x, None)
    assert (hidden.dtype, state.dtype) == (torch.bfloat16, torch.complex64)
    assert torch.equal(state, exact_state)
    assert (hidden - exact).abs().max() < 0.05
    assert not torch.equal(hidden, again)
    assert state.untyped_storage().nbytes() == state.nbytes
