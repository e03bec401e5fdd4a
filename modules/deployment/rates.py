"""AP of a network at other rates of windows than it was trained at, from recordings and their boxes.

"State Space Models for Event Cameras" (CVPR 2024) finds that recurrent networks lose much of their AP at other rates,
and state spaces, whose time steps can be scaled, little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from numpy import ndarray
from torch import Tensor, nn

from config.errors import UserError
from config.schema import Config, DatasetConfig
from data.recordings.label_grid import FrameGrid, frame_grid
from data.recordings.recording import Recording
from data.recordings.representation import count_window
from data.recordings.usable import check_events
from models.cells.cell import State
from models.cells.s5 import StateSpaceModel
from models.detector import Detector
from modules.deployment.labelled import Labelled, open_for
from modules.evaluation.evaluator import Evaluation, EvaluationResult

WindowLength = Literal[
    "trained", "rate"
]  # windows of the trained length, which overlap at higher rates; or of 1 / rate
_TOLERANCE = 0.02  # of a rate, against what the distances of labels allow


@dataclass(frozen=True)
class Rate:
    hz: float
    length: WindowLength

    @property
    def period_us(self) -> int:
        return round(1e6 / self.hz)

    def window_us(self, dataset: DatasetConfig) -> int:
        return dataset.representation.window_ms * 1000 if self.length == "trained" else self.period_us


@dataclass(frozen=True)
class RateResult:
    """What one rate gave; `result.protocol` says under which protocol."""

    rate: Rate
    window_us: int
    step_scale: float | None  # of the state-space models in the network; None without any
    num_frames: int  # windows that the network saw
    result: EvaluationResult
    left_out: Counter[str]  # times of boxes that are no labelled frame, by reason; the same at every rate


class RateMeasure:
    """A trained network and the recordings that it is measured on."""

    def __init__(
        self, detector: Detector, config: Config, recordings: Sequence[Labelled], dtype: torch.dtype = torch.float32
    ) -> None:
        """`dtype`: of matrix products. Raises UserError where no recording has two labelled frames."""
        self._detector, self._config, self._recordings, self._dtype = detector.eval(), config, recordings, dtype
        settings = config.dataset.preprocessing
        window_us = config.dataset.representation.window_ms * 1000
        self._trained_us = _spacing_us([frame_grid(each.label_us, settings, window_us) for each in recordings])
        self._settings = settings.model_copy(update={"reference_gen1_spacing": False})

    def grids(self, rate: Rate) -> list[FrameGrid]:
        """Frames of each recording: they end at every labelled time, and a period apart between.

        Raises UserError where whole periods do not fit between the labels, and frames would come at another rate.
        """
        grids = [frame_grid(each.label_us, self._settings, rate.period_us) for each in self._recordings]
        spacing_us = _spacing_us(grids)
        if abs(spacing_us / rate.period_us - 1) > _TOLERANCE:
            raise UserError(
                f"rates: at {rate.hz:g} windows a second no whole number of them fits between labelled frames, at each "
                f"of which one has to end. {1e6 / spacing_us:.4g} would fit"
            )
        return grids

    @torch.inference_mode()
    def __call__(self, rate: Rate) -> RateResult:
        """Raises UserError as `grids`, and for a recording whose events preprocessing would refuse."""
        dataset, window_us = self._config.dataset, rate.window_us(self._config.dataset)
        detector = deepcopy(self._detector)
        step_scale = scale_steps(detector, rate.period_us / self._trained_us)
        evaluation = Evaluation(dataset, self._config.evaluation, self._config.model.postprocess)
        left_out: Counter[str] = Counter()
        num_frames = 0
        for each, grid in zip(self._recordings, self.grids(rate), strict=True):
            recording = open_for(each.files, dataset)
            stream = _Stream(detector, self._dtype)
            num_events: list[int] = []
            for frames, counts in _chunks(recording, grid.end_us + each.start_us, window_us, dataset):
                here = (grid.labelled >= len(num_events)) & (grid.labelled < len(num_events) + len(frames))
                labelled = grid.labelled[here] - len(num_events)
                _add(evaluation, each, dataset, grid.label_us[here], frames[labelled], stream(frames, labelled))
                num_events += counts
            kept = grid.first(len(num_events))
            check_events(each.files, recording, np.array(num_events, np.int64)[kept.labelled])
            num_frames += len(num_events)
            left_out += _left_out(each, grid, kept, dataset)
        return RateResult(rate, window_us, step_scale, num_frames, evaluation.result("recordings"), left_out)


class _Stream:
    """The network along one recording, chunk by chunk, as validation runs it."""

    def __init__(self, detector: Detector, dtype: torch.dtype) -> None:
        self._detector, self._device = detector, next(detector.parameters()).device
        self._autocast = torch.autocast(self._device.type, dtype=dtype, enabled=dtype != torch.float32)
        self._state: list[State] | None = None

    def __call__(
        self, frames: UInt8[ndarray, "l c h w"], labelled: Int64[ndarray, " k"]
    ) -> list[Float32[Tensor, "_ 7"]]:
        """Detections of the labelled ones among the next frames."""
        with self._autocast:
            batch = torch.from_numpy(frames).to(self._device)[:, None]
            features, self._state = self._detector.encode(batch, self._state)
            selected = self._detector.select(features, torch.from_numpy(labelled).to(self._device))
            return [found.float().cpu() for found in self._detector.detect(selected)]


def scale_steps(network: nn.Module, factor: float) -> float | None:
    """Let its state-space models take steps of `factor` the length; returns their `step_scale`, None without any."""
    scale = None
    for module in network.modules():
        if isinstance(module, StateSpaceModel):
            scale = module.config.step_scale * factor
            module.config = module.config.model_copy(update={"step_scale": scale})
    return scale


def _chunks(
    recording: Recording, end_us: Int64[ndarray, " frames"], window_us: int, dataset: DatasetConfig
) -> Iterator[tuple[UInt8[ndarray, "l c h w"], list[int]]]:
    """Frames of the windows with these ends, as many at a time as validation reads, and the events in each."""
    frames = np.zeros((dataset.sequence_length, dataset.channels, *dataset.loaded_hw), np.uint8)
    counts: list[int] = []
    for events in recording.windows((end - window_us, end) for end in end_us.tolist()):
        frame = frames[len(counts)]
        frame.fill(0)
        count_window(events, dataset.representation.count_cutoff, dataset.resolution_hw, frame)
        counts.append(len(events))
        if len(counts) == len(frames):
            yield frames, counts
            counts = []
    if counts:
        yield frames[: len(counts)], counts


def _add(
    evaluation: Evaluation,
    each: Labelled,
    dataset: DatasetConfig,
    label_us: Int64[ndarray, " k"],
    frames: UInt8[ndarray, "k c h w"],
    detections: Sequence[Float32[Tensor, "_ 7"]],
) -> None:
    if len(label_us) == 0:
        return
    boxes, box_image = each.truth(label_us, dataset)
    evaluation.add(
        sequence_names=[each.files.name] * len(label_us),
        t_us=torch.from_numpy(label_us),
        detections=detections,
        boxes=torch.from_numpy(boxes),
        box_image=torch.from_numpy(box_image),
        event_count=torch.from_numpy(frames.sum(axis=(1, 2, 3), dtype=np.int64)),
    )


def _spacing_us(grids: Sequence[FrameGrid]) -> float:
    """Between frames from the first labelled one on."""
    gaps = [np.diff(grid.end_us[grid.labelled[0] :]) for grid in grids if len(grid.labelled)]
    if sum(map(len, gaps)) == 0:
        raise UserError("no recording has two labelled frames: there is nothing to measure on")
    return float(np.median(np.concatenate(gaps)))


def _left_out(each: Labelled, grid: FrameGrid, kept: FrameGrid, dataset: DatasetConfig) -> Counter[str]:
    settings = dataset.preprocessing
    early = int((each.label_us < settings.first_label_ms * 1000).sum())
    return +Counter(
        {
            f"before the first {settings.first_label_ms:g} ms": early,
            f"at no multiple of {settings.label_interval_ms:g} ms after the labelled frame before": (
                len(each.label_us) - early - len(grid.label_us)
            ),
            "behind the recording's last event": len(grid.label_us) - len(kept.label_us),
        }
    )
