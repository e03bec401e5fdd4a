"""What a checkpoint of a run holds: types, ranges and shapes, checked before anything of it is used."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, PositiveInt
from pydantic import ValidationError as InvalidError
from torch import Tensor

from config.errors import UserError
from models.weights.file import another, nested_tensors, require_finite

MT19937_WORDS = 624
Count = Annotated[int, Field(ge=0, lt=2**53)]


def _progress(*names: str) -> dict[str, Any]:
    return {when: dict.fromkeys(names, 0) for when in ("total", "current")}


BATCHES = {**_progress("ready", "started", "processed", "completed"), "is_last_batch": False}
FIT_LOOP = {  # Lightning's names
    "state_dict": {},
    "epoch_progress": _progress("ready", "started", "processed", "completed"),
    "epoch_loop.state_dict": {"_batches_that_stepped": 0},
    "epoch_loop.batch_progress": BATCHES,
    "epoch_loop.scheduler_progress": _progress("ready", "completed"),
    "epoch_loop.automatic_optimization.state_dict": {},
    "epoch_loop.automatic_optimization.optim_progress": {
        "optimizer": {"step": _progress("ready", "completed"), "zero_grad": _progress("ready", "started", "completed")}
    },
    "epoch_loop.manual_optimization.state_dict": {},
    "epoch_loop.manual_optimization.optim_step_progress": _progress("ready", "completed"),
    "epoch_loop.val_loop.state_dict": {},
    "epoch_loop.val_loop.batch_progress": BATCHES,
}


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)


class _Best(_Part):
    file: str
    AP: Annotated[float, Field(ge=0, le=1)]
    step: Count


class _Writer(_Part):
    best: list[_Best]
    validation_pending: bool
    epoch: Count


def _named(metrics: dict[str, float | None]) -> dict[str, float | None]:
    lacking = {"step", "epoch", "AP"} - {name for name, value in metrics.items() if value is not None}
    if lacking:
        raise ValueError(f"lacks {', '.join(sorted(lacking))}")
    return metrics


Validation = Annotated[dict[str, float | None], AfterValidator(_named)]


_Size = Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]


class _EndedStage(_Part):
    stage: PositiveInt
    first_step: Count
    last_step: Count
    frame_hw: _Size
    checkpoint: str | None
    AP: float | None
    at_last_stage: dict[str, float | None] | None
    last_stage_frame_hw: _Size | None = None  # older ones lack it


class _Record(_Part):
    history: list[Validation]
    stages: list[_EndedStage] = []
    seconds: Annotated[FiniteFloat, Field(ge=0)]


class _Guard(_Part):
    skipped: Count
    in_a_row: Count


class _Callbacks(_Part):
    """Those that keep something; others may be there."""

    CheckpointWriter: _Writer
    RunRecord: _Record | None = None
    GradientGuard: _Guard | None = None


class _Plan(_Part):
    position: Count
    batches_trained: Count
    processes: PositiveInt | None = None  # older ones lack it
    steps_per_epoch: PositiveInt
    signature: str


class _Scaler(_Part):
    scale: Annotated[FiniteFloat, Field(gt=0)]
    growth_factor: Annotated[FiniteFloat, Field(gt=0)]
    backoff_factor: Annotated[FiniteFloat, Field(gt=0)]
    growth_interval: PositiveInt
    growth_tracker: Annotated[NonNegativeInt, Field(alias="_growth_tracker")]


class _Reproduce(_Part):
    seed_everything: Annotated[int, Field(ge=0, lt=2**32)] | None


class _Training(_Part):
    freeze: list[str] = []
    stages: list[dict[str, Any]] | None = None


class _Stage(_Part):
    number: PositiveInt
    first_step: Count


class _Config(_Part):
    reproduce: _Reproduce
    training: _Training


class _Optimizer(_Part):
    state: dict[int, dict[str, Tensor]]
    param_groups: list[dict[str, Any]]


class _RandomState(_Part):
    torch: Tensor
    python: list[Any]
    numpy: list[Any]
    cuda: Tensor | None = None


def _of_lightning(version: str) -> str:
    found = re.fullmatch(r"(\d{1,4})\.\d+\.\d+((\.post|\.dev|rc)\d+)?", version, re.ASCII)
    if found is None or int(found[1]) < 2:  # its migration of older files believes what they say
        raise ValueError("no version of pytorch-lightning that has written checkpoints of ours")
    return version


class _Content(_Part):
    """The names are Lightning's, and of our hooks."""

    epoch: Count
    global_step: Count
    config: _Config
    stage: _Stage | None = None  # of a training that has several
    state_dict: dict[str, Tensor]
    current_model_state: dict[str, Tensor] = {}  # of the last step, where state_dict is an average
    average: None = None  # the name is taken while a checkpoint is loaded
    lightning: Annotated[str, AfterValidator(_of_lightning), Field(alias="pytorch-lightning_version")] = "2"
    loops: dict[str, Any]
    lr_schedulers: list[Any] = []
    callbacks: _Callbacks
    optimizer_states: list[_Optimizer] = []
    EventDataModule: _Plan | None = None
    MixedPrecision: _Scaler | None = None
    hidden_state: list[list[tuple[Tensor, ...]] | None] = []
    random_state: list[_RandomState] = []


def check_content(content: Mapping[str, Any], path: Path) -> None:
    """Everything that needs no network to compare with. Raises UserError, which names the place in the file."""
    if "config" not in content or "loops" not in content:
        raise UserError(f"{path}: not a checkpoint of a run, so it cannot be resumed. weights={path} takes its weights")
    try:
        checked = _Content.model_validate(content)
    except InvalidError as error:
        first = error.errors()[0]
        refuse(path, ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, "))
    for tensor in nested_tensors(content):  # one number may stand for any shape, and is looked at as often
        if tensor.layout == torch.strided and tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
            refuse(path, "a tensor", f"{list(tensor.shape)} is more than the file holds of it")
    _check_loops(checked.loops, {"fit_loop": FIT_LOOP}, path, "loops")
    require_finite(checked.state_dict, path)
    require_finite(checked.current_model_state, path)
    moments = {str(i): tensor for i, tensor in enumerate(nested_tensors([o.state for o in checked.optimizer_states]))}
    require_finite(moments, path, "moments of the optimizer")
    for rank, state in enumerate(checked.random_state):
        _check_random_state(state, path, rank)


def refuse(path: Path, place: str, reason: str) -> NoReturn:
    raise UserError(f"{path}: {place} is not what a run writes there: {reason}. {another(path)}")


def _check_loops(theirs: object, ours: object, path: Path, place: str) -> None:
    if isinstance(ours, dict):
        if not isinstance(theirs, dict) or not ours.keys() <= theirs.keys():
            refuse(path, place, "parts are missing")
        else:
            for name, part in ours.items():
                _check_loops(theirs[name], part, path, f"{place}.{name}")
    elif type(theirs) is not type(ours) or (isinstance(theirs, int) and not 0 <= theirs < 2**53):
        refuse(path, place, "no count")


def _check_random_state(state: _RandomState, path: Path, rank: int) -> None:
    """By generators that nobody uses."""
    try:
        torch.Generator().set_state(state.torch)
        version, numbers, gauss = state.python
        random.Random().setstate((version, tuple(numbers), gauss))
        words, position, has_gauss, cached = state.numpy
        if words.shape != (MT19937_WORDS,) or words.dtype != torch.int64 or not 0 <= position <= MT19937_WORDS:
            raise ValueError("numpy would read beyond its words")
        key = words.numpy().astype(np.uint32)
        np.random.RandomState().set_state(("MT19937", key, position, has_gauss, cached))
        if state.cuda is not None and (state.cuda.dtype, state.cuda.shape) != (torch.uint8, (16,)):
            raise ValueError("no state of a GPU's generator")
    except (TypeError, ValueError, AttributeError, RuntimeError, OverflowError):
        refuse(path, f"random_state.{rank}", "no state of a random generator")
