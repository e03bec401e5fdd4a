import pytest
import torch

from models.backbone import Downsample, RecurrentBackbone
from tests.network import (
    PARTITION_SIZE,
    frames_of_call,
    golden,
    golden_detector,
    golden_tensor,
    largest_difference,
    model_config,
)

STAGES = (1, 2, 3, 4)


def reset(state, is_first):
    return [tuple(part * ~is_first.view(-1, 1, 1, 1) for part in stage) for stage in state]


@torch.no_grad()
def test_features_and_states_of_the_reference_with_carried_state_and_a_reset_lane():
    backbone = golden_detector().eval().backbone
    expected = golden("model_backbone")
    state = None
    for call in (1, 2):
        if call == 2:
            state = reset(state, golden_tensor("model_inputs", "reset_mask_call2"))
        features, state = backbone(frames_of_call(call).float(), state)
        for index, stage in enumerate(STAGES):
            assert largest_difference(features[index], expected[f"call{call}_h_stage{stage}"]) < 2e-5
            assert largest_difference(state[index][0], expected[f"call{call}_h_stage{stage}"][-1]) < 2e-5
            assert largest_difference(state[index][1], expected[f"call{call}_c_stage{stage}"][-1]) < 2e-5


@torch.no_grad()
def test_chunks_of_one_frame_give_the_reference_states():
    backbone = golden_detector().eval().backbone
    state = None
    for t, frame in enumerate(frames_of_call(1).float()):
        features, state = backbone(frame[None], state)
        for index, stage in enumerate(STAGES):
            assert largest_difference(features[index][0], golden("model_backbone")[f"call1_h_stage{stage}"][t]) < 2e-5
            assert largest_difference(state[index][1], golden("model_backbone")[f"call1_c_stage{stage}"][t]) < 2e-5


@torch.no_grad()
def test_inside_the_first_stage():
    stage = golden_detector().eval().backbone.stages[0]
    maps = stage.downsample(frames_of_call(1)[0, :1].float())
    assert largest_difference(maps, golden("model_backbone")["stage1_t0_downsample_nhwc"]) < 2e-5
    maps = stage.blocks[0].window(maps)
    assert largest_difference(maps, golden("model_backbone")["stage1_t0_after_window_nhwc"]) < 2e-5
    maps = stage.blocks[0].grid(maps)
    assert largest_difference(maps, golden("model_backbone")["stage1_t0_after_grid_nhwc"]) < 2e-5


def step_by_step(backbone, frames, state):
    """The definition: all four stages for a frame, then the next frame."""
    outputs = []
    for frame in frames:
        maps, features, new_state = frame, [], []
        for index, stage in enumerate(backbone.stages):
            x = stage.downsample(maps)
            for block in stage.blocks:
                x = block(x)
            hidden, stage_state = stage.cell(x[None], None if state is None else state[index])
            maps = hidden[0].permute(0, 3, 1, 2)
            features.append(maps)
            new_state.append(stage_state)
        state = new_state
        outputs.append(features)
    return [torch.stack(maps) for maps in zip(*outputs, strict=True)], state


@pytest.mark.parametrize("num_frames", [1, 3])
@pytest.mark.parametrize("cell", ["cell=lstm", "lstm.dws_conv=true", "cell=s5"])
def test_stage_by_stage_equals_step_by_step_forward_and_backward(num_frames, cell):
    config = model_config(f"model.backbone.stage.{cell}", "model.backbone.num_blocks=[1,2,1,1]").backbone
    torch.manual_seed(0)
    backbone = RecurrentBackbone(config, PARTITION_SIZE).double()
    frames = torch.randn(num_frames, 2, 20, 64, 128, dtype=torch.float64)
    _, state = backbone(frames[:1], None)
    state = [tuple(part.detach() for part in stage) for stage in state]
    results = []
    for walk in (backbone, lambda *inputs: step_by_step(backbone, *inputs)):
        features, last = walk(frames, state)
        loss = sum(maps.square().sum() for maps in features) + sum(stage[-1].real.sum() for stage in last)
        gradients = torch.autograd.grad(loss, list(backbone.parameters()))
        results.append([*features, *(part for stage in last for part in stage), *gradients])
    for ours, definition in zip(*results, strict=True):
        torch.testing.assert_close(ours, definition)


@pytest.mark.parametrize("cell", ["lstm", "s5"])
def test_activation_checkpointing_changes_no_number(cell):
    """In float64, since gradients are summed up in another order."""
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        config = model_config(f"model.backbone.stage.cell={cell}").backbone
        backbone = RecurrentBackbone(config, PARTITION_SIZE, checkpointing).double().train()
        _, state = backbone(frames_of_call(1).double(), None)
        features, state = backbone(frames_of_call(2).double(), [tuple(p.detach() for p in stage) for stage in state])
        loss = sum(maps.square().sum() for maps in features) + state[0][-1].real.sum()
        gradients.append(torch.autograd.grad(loss, list(backbone.parameters())))
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize(("overlap", "kernel"), [("true", (7, 7)), ("false", (4, 4))])
def test_patches_overlap_or_touch(overlap, kernel):
    config = model_config(f"model.backbone.stage.downsample.overlap={overlap}").backbone.stage.downsample
    layer = Downsample(20, 16, 4, config)
    assert layer.conv.kernel_size == kernel
    assert layer(torch.zeros(1, 20, 64, 128)).shape == (1, 16, 32, 16)


@pytest.mark.parametrize("cell", ["lstm", "s5"])
def test_no_gradient_is_lost_in_bfloat16(cell):
    """Sums over all cells of a map want more than its eight bits."""
    torch.manual_seed(0)
    backbone = RecurrentBackbone(model_config(f"model.backbone.stage.cell={cell}").backbone, PARTITION_SIZE)
    frames = torch.randint(0, 3, (1, 2, 20, 192, 256), dtype=torch.uint8)
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        backbone.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            features, _ = backbone(frames, None)
        sum(maps.float().square().sum() for maps in features).backward()
        gradients.append({name: weight.grad for name, weight in backbone.named_parameters()})
    for name, expected in gradients[0].items():
        assert (gradients[1][name] - expected).norm() < 0.1 * expected.norm(), name


@pytest.mark.parametrize("cell", ["lstm", "s5"])
def test_a_state_tells_its_shapes_and_size(cell):
    backbone = RecurrentBackbone(model_config(f"model.backbone.stage.cell={cell}").backbone, PARTITION_SIZE)
    _, state = backbone(torch.zeros(1, 1, 20, 64, 128, dtype=torch.uint8), None)
    told = [[(part.shape, part.dtype) for part in stage] for stage in backbone.lane_state((64, 128))]
    assert told == [[(part.shape, part.dtype) for part in stage] for stage in state]
    assert backbone.state_bytes((64, 128)) == sum(part.nbytes for stage in state for part in stage)
    assert {type(parameter) for parameter in backbone.parameters()} == {torch.nn.Parameter}  # still with values
