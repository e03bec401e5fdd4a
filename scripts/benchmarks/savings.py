"""What each saving of inference brings at one frame of one stream: every row is the row before and one thing more."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from models.detector import Detector
from models.frozen_layers import FrozenAttention, FrozenLinear
from models.inference import OneFrame
from models.layers.kernels import attend, map_linear, using
from models.postprocess import decode
from scripts.benchmarks import plain_network
from scripts.benchmarks.measuring import Measure, Row, alternate
from scripts.benchmarks.network import OURS, PLAIN, Batch, Case

Step = Callable[[], Tensor]  # the next frame; predictions, decoded
_FIRST = torch.zeros(1, dtype=torch.int64)


def savings(case: Case, rounds: int) -> list[Row]:
    """Costs are of the network alone, from a frame in memory to its predictions, decoded."""
    case = replace(case, batch_size=1, length=1)
    steps = ladder(case)
    measures = {name: _cost_of(step, case) for name, step in steps.items()}
    for measure in measures.values():
        measure()
    costs = alternate(measures, rounds)
    names = list(costs)
    unit = "CPU ms" if case.cpu_time else "ms"
    rows = [Row(names[0], unit, costs[names[0]])]
    pairs = pairwise(names)
    return [*rows, *(Row(after, unit, costs[after], costs[before]) for before, after in pairs)]


def ladder(case: Case) -> dict[str, Step]:
    """From the plain way to ours; each gives the same predictions, up to rounding."""
    frame = Batch(case).frames[0]
    folded = replace(PLAIN, folded_norm=True, folded_scale=True)
    return {
        "plain way, autograd recording": _plain(case.detector(PLAIN), frame, nullcontext),
        "no autograd recording": _plain(case.detector(PLAIN), frame, torch.no_grad),
        "inference_mode": _plain(case.detector(PLAIN), frame, torch.inference_mode),
        "folded norms and layer scales": _plain(case.detector(folded), frame, torch.inference_mode),
        "one-frame path": _one_frame(case, frame, allocated=False, packed=False, own_softmax=False),
        "memory for frames that stays": _one_frame(case, frame, allocated=True, packed=False, own_softmax=False),
        "packed weights": _one_frame(case, frame, allocated=True, packed=True, own_softmax=False),
        "softmax over short rows": _one_frame(case, frame, allocated=True, packed=True, own_softmax=True),
        "memory for states that stays": _one_frame(
            case, frame, allocated=True, packed=True, own_softmax=True, states_stay=True
        ),
    }


def _plain(detector: Detector, frame: Tensor, mode: Callable[[], object]) -> Step:
    detector.eval()
    state = None

    def step() -> Tensor:
        nonlocal state
        with mode(), using(**PLAIN.kernels):  # type: ignore[bad-context-manager]
            selected, after = plain_network.encode(detector, [frame], _FIRST, state)
            state = [(hidden.detach(), cell.detach()) for hidden, cell in after]
            return decode(detector.predict(selected))

    return step


def _one_frame(
    case: Case, frame: Tensor, *, allocated: bool, packed: bool, own_softmax: bool, states_stay: bool = False
) -> Step:
    height, width = frame.shape[-2:]
    network = OneFrame(case.detector(OURS).eval(), (height, width))
    for module in network.modules():
        if isinstance(module, FrozenLinear) and not packed:
            module.forward = _unpacked(module)  # type: ignore[bad-assignment]
        if isinstance(module, FrozenAttention) and not own_softmax:
            module._softmax_attention = attend  # type: ignore[bad-assignment]
    memory = network.padded_frames(frame.shape[1])
    state = network.first_state()

    def step() -> Tensor:
        nonlocal state
        with torch.inference_mode():
            if allocated:
                memory[..., :height, :width].copy_(frame)
            predictions, after = network(memory if allocated else frame, *state)
            if states_stay:
                for kept, new in zip(state, after, strict=True):
                    kept.copy_(new)
            else:
                state = after
            return predictions

    return step


def _unpacked(layer: FrozenLinear) -> Callable[[Tensor], Tensor]:
    return lambda maps: map_linear(maps.to(layer.weight.dtype), layer.weight, layer.bias)


def _cost_of(step: Step, case: Case) -> Measure:
    clock = time.process_time if case.cpu_time else time.perf_counter

    def measure() -> float:
        begun = clock()
        step()
        return 1000 * (clock() - begun)

    return measure
