"""Training and inference steps, the plain way and ours, and any mixture of the two."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from config.command_line import SPIN_COUNT
from config.loading import load_train_config
from config.processor import has_bfloat16
from config.schema import TrainConfig
from models.cells.cell import State
from models.detector import Detector, Features
from models.layers.attention import AttentionBlock
from models.layers.convolution import ConvBlock
from models.layers.kernels import using
from models.layers.linear import MapLinear
from models.loss import assigned_losses
from models.postprocess import decode, postprocess
from modules.optimizer import build_optimizer
from modules.run.memory import keep_freed_memory
from scripts.benchmarks import plain_network
from scripts.benchmarks.measuring import Measure, Remote, peak_mb

WARM_UP_STEPS = {"cpu": 2, "cuda": 5}  # a CPU's second step still asks the kernel for some memory
DENSITY = 0.02  # of non-zero cells
CHECK_SIZE = ("dataset.resolution_hw=[128,256]", "model.backbone.embed_dim=16", "model.backbone.partition_split_32=1",
              "model.backbone.stage.attention.dim_head=8")  # fmt: skip


PLAIN_ATTENTION = {"attention": "products", "evaluation_attention": "products"}
PLAIN_KERNELS = {"linear": "product", **PLAIN_ATTENTION, "frames": "channels_first"}


@dataclass(frozen=True)
class Way:
    """How a step is done; as it stands, the plain way."""

    keep_memory: bool = False  # the allocator's
    brief_spin: bool = False  # OpenMP threads spin for microseconds, then sleep, while they wait
    stage_major: bool = False  # a stage's convolutions and attention run on all frames at once
    batch_assignment: bool = False  # SimOTA for all images at once
    without_nms: bool = False
    chosen_linear: bool = False  # linear layers, attention and the frames' layout: as this processor's kernels are
    chosen_attention: bool = False
    chosen_frames: bool = False
    folded_norm: bool = False  # batch norms, in inference
    folded_scale: bool = False  # layer scales, into the weights of the layer before
    fused_optimizer: bool = False
    bfloat16: bool = False
    activation_checkpointing: bool = False
    other_kernels: tuple[tuple[str, str], ...] = ()  # choice and way, against what the processor's would be

    @property
    def plain_layers(self) -> set[type[nn.Module]]:
        ours = {MapLinear: self.chosen_linear, ConvBlock: self.folded_norm, AttentionBlock: self.folded_scale}
        return {layer for layer, done in ours.items() if not done}

    @property
    def kernels(self) -> dict[str, str]:
        """Choices that are not left to the processor."""
        left = {"linear": self.chosen_linear, "frames": self.chosen_frames}
        left |= dict.fromkeys(PLAIN_ATTENTION, self.chosen_attention)
        return {name: way for name, way in PLAIN_KERNELS.items() if not left[name]} | dict(self.other_kernels)

    def remote(self, make: Callable[[Case, Way], Measure], case: Case) -> Remote:
        """Measure in a new process."""
        policy = {"OMP_WAIT_POLICY": "PASSIVE"} if case.cpu_time else {}
        if self.brief_spin:
            policy.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
        return Remote(make, case, self, environment=policy)


PLAIN = Way()
NOT_OURS = ("bfloat16", "activation_checkpointing", "other_kernels")
OURS = Way(**{way.name: True for way in fields(Way) if way.name not in NOT_OURS})  # type: ignore[bad-argument-type]
FAST = replace(OURS, bfloat16=True)


def ways_by_precision(device: str) -> dict[str, Way]:
    """Ours in float32, then in bfloat16 where the device has hardware for it."""
    return {"float32": OURS} | ({"bfloat16": FAST} if has_bfloat16(device) else {})


def fastest(device: str) -> Way:
    return FAST if has_bfloat16(device) else OURS


@dataclass(frozen=True)
class Case:
    """What is computed: network, frames and boxes."""

    device: str = "cpu"
    overrides: tuple[str, ...] = ()
    model: str = "small"
    batch_size: int = 6
    length: int = 5
    boxes_per_frame: int = 8
    cpu_time: bool = False  # of all threads, instead of what a clock on the wall says

    @property
    def description(self) -> str:
        return f"{self.model}, B = {self.batch_size}, L = {self.length}"

    @property
    def unit(self) -> str:
        return "CPU s" if self.cpu_time else "s"

    def config(self) -> TrainConfig:
        return _config(self.model, self.overrides)

    def detector(self, way: Way) -> Detector:
        config = self.config()
        torch.manual_seed(0)
        detector = Detector(
            config.model, config.dataset.num_classes, config.partition_size, way.activation_checkpointing
        )
        plain_network.replace_layers(detector, way.plain_layers)
        return detector.to(self.device)


@cache
def _config(model: str, overrides: tuple[str, ...]) -> TrainConfig:
    common = ["dataset=gen4", "model=maxvit_yolox/default", f"+experiment/gen4={model}"]
    return load_train_config([*common, f"dataset.path={Path.cwd()}", *overrides])


class Batch:
    """Random frames, every second one labelled, as loaders give them: one tensor, or a tensor for each time."""

    def __init__(self, case: Case) -> None:
        dataset = case.config().dataset
        height, width = dataset.loaded_hw
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator)

        shape = (case.length, case.batch_size, dataset.channels, height, width)
        events = torch.randint(1, 4, shape, dtype=torch.uint8, generator=generator)
        frames = torch.where(random(*shape) < DENSITY, events, 0)
        time_and_lane = torch.arange(case.length)[:, None] + torch.arange(case.batch_size)
        labelled = (time_and_lane % 2 == 0).flatten().nonzero()[:, 0]
        count = len(labelled) * case.boxes_per_frame
        class_id = torch.randint(dataset.num_classes, (count, 1), generator=generator)
        centre = random(count, 2) * torch.tensor([width, height])
        boxes = torch.cat((class_id, centre, 10 + random(count, 2) * min(height, width) / 4), dim=1)
        self.frames, self.boxes = frames.to(case.device), boxes.to(case.device)
        self.labelled_on_host, self.labelled = labelled, labelled.to(case.device)
        self.box_image = torch.arange(len(labelled), device=case.device).repeat_interleave(case.boxes_per_frame)


class Steps:
    """Steps of one detector on one batch, the hidden state handed on from each to the next."""

    def __init__(self, case: Case, way: Way) -> None:
        if way.keep_memory:
            keep_freed_memory()
        self.case, self.way, self.detector = case, way, case.detector(way)
        self.take(Batch(case))
        self._autocast = torch.autocast(case.device, dtype=torch.bfloat16, enabled=way.bfloat16)
        training = case.config().training
        self._optimizer = build_optimizer(self.detector.parameters(), training, fused=way.fused_optimizer or None)

    def take(self, batch: Batch) -> None:
        """Go on with another batch, from a hidden state of zeros."""
        self.batch, self._frame_list = batch, list(batch.frames)
        self._state: list[State] | None = None

    def train(self) -> Tensor:
        """One step of training; the loss."""
        with using(**self.way.kernels):
            return self._train()

    def _train(self) -> Tensor:
        with self._autocast:
            losses = self._losses(self._encode())
        losses["loss"].backward()
        torch.nn.utils.clip_grad_value_(self.detector.parameters(), 1.0, foreach=True)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return losses["loss"]

    def infer(self) -> list[Tensor]:
        """One step of evaluation; the detections."""
        with using(**self.way.kernels), torch.inference_mode(), self._autocast:
            return self.detector.detect(self._encode())

    def _encode(self) -> Features:
        if self.way.stage_major:
            features, state = self.detector.encode(self.batch.frames, self._state)
            selected = self.detector.select(features, self.batch.labelled)
        else:
            labelled = self.batch.labelled_on_host  # the usual way's are a list, and cost no wait for the GPU
            selected, state = plain_network.encode(self.detector, self._frame_list, labelled, self._state)  # type: ignore[bad-argument-type]  # an LSTM's pairs
        self._state = [tuple(part.detach() for part in stage) for stage in state]
        return selected

    def _losses(self, selected: Features) -> dict[str, Tensor]:
        predictions, boxes, box_image = self.detector.predict(selected), self.batch.boxes, self.batch.box_image
        if not self.way.without_nms:
            thresholds = self.detector.head.thresholds
            with torch.no_grad():
                postprocess(decode(predictions), thresholds.confidence_threshold, thresholds.nms_threshold)
        with torch.autocast(self.case.device, enabled=False):
            if self.way.batch_assignment:
                return self.detector.head.loss(predictions, boxes, box_image)
            assigned = plain_network.assign_anchors(predictions, boxes, box_image)
            return assigned_losses(predictions, boxes, assigned, self.case.config().model.loss)


def seconds_of_training(case: Case, way: Way) -> Measure:
    steps = Steps(case, way)
    return _timed(steps.train, case)


def seconds_of_inference(case: Case, way: Way) -> Measure:
    steps = Steps(case, way)
    steps.detector.eval()
    return _timed(steps.infer, case)


def megabytes_of_training(case: Case, way: Way) -> Measure:
    """Most memory that a step takes beside weights, moments and the batch; to be measured once in a process."""
    steps = Steps(replace(case, length=1, batch_size=1), way)
    steps.train()  # moments, and what libraries take once and for all
    steps.take(Batch(case))

    return lambda: peak_mb(steps.train, case.device)


def _timed(step: Callable[[], object], case: Case) -> Measure:
    clock = time.process_time if case.cpu_time else time.perf_counter

    def measure() -> float:
        started = clock()
        step()
        if case.device == "cuda":
            torch.cuda.synchronize()
        return clock() - started

    for _ in range(WARM_UP_STEPS[case.device]):
        measure()
    return measure
