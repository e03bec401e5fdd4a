"""Detections measured by the Prophesee protocol: COCO AP and confusion matrix over all predictions of all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from config.schema import DatasetConfig, EvaluationConfig, PostprocessConfig
from data.boxes import xywh_from_cxcywh, xywh_from_xyxy
from modules.evaluation import coco
from modules.evaluation.confusion import ConfusionMatrix, confusion_matrix
from modules.evaluation.labelled_frames import Boxes, LabelledFrames, Predictions
from modules.evaluation.matching import Matches, match
from modules.evaluation.protocol import apply_box_filter, describe_protocol
from modules.evaluation.weighted import WeightedAp, mean_over_classes
from modules.run.processes import gather_objects


class Evaluation:
    """Collects labelled frames with their predictions, batch by batch, and measures them in the end."""

    def __init__(
        self, dataset: DatasetConfig, settings: EvaluationConfig, postprocess: PostprocessConfig | None = None
    ) -> None:
        """`postprocess` is what made the predictions; it is stated in the protocol and changes nothing here."""
        self._dataset, self._settings, self._postprocess = dataset, settings, postprocess
        self.reset()

    def reset(self) -> None:
        """Forget everything that was added."""
        self._parts: list[LabelledFrames] = []

    def add(
        self,
        sequence_names: Sequence[str],
        t_us: Int64[Tensor, " k"],
        detections: Sequence[Float32[Tensor, "_ 7"]],
        boxes: Float32[Tensor, "n 5"],
        box_image: Int64[Tensor, " n"],
        event_count: Int64[Tensor, " k"],
    ) -> None:
        """Add K labelled frames.

        Args:
            sequence_names: the sequence of each frame.
            t_us: the frame's time since its sequence's start.
            detections: per frame x1, y1, x2, y2, objectness, class confidence, class id; pixels of the loaded frame.
            boxes: ground truth of all K frames: class, centre x, centre y, width, height.
            box_image: the frame, 0..K-1, of each box.
            event_count: events in each frame.
        """
        names = tuple(dict.fromkeys(sequence_names))
        index = {name: number for number, name in enumerate(names)}
        found = torch.cat([torch.zeros(0, 7), *(d.detach().float().cpu() for d in detections)]).numpy()
        class_cxcywh = boxes.detach().float().cpu().numpy()
        truth = Boxes(
            frame=box_image.cpu().numpy().astype(np.int32),
            class_id=class_cxcywh[:, 0].astype(np.int32),
            xywh=xywh_from_cxcywh(class_cxcywh[:, 1:]),
        )
        predictions = Predictions(
            frame=np.repeat(np.arange(len(detections), dtype=np.int32), [len(d) for d in detections]),
            class_id=found[:, 6].astype(np.int32),
            xywh=xywh_from_xyxy(found[:, :4]),
            objectness=found[:, 4].copy(),
            class_confidence=found[:, 5].copy(),
        )
        sequence = np.array([index[name] for name in sequence_names], np.int32)
        self._parts.append(
            LabelledFrames(names, sequence, t_us.cpu().numpy(), event_count.cpu().numpy(), truth, predictions)
        )

    def gather(self) -> LabelledFrames:
        """Bring the frames of all ranks together on every rank; a frame that two ranks saw counts once."""
        mine = LabelledFrames.merge(self._parts)
        self._parts = gather_objects(mine)
        return LabelledFrames.merge(self._parts)

    def result(self, split: str = "val") -> EvaluationResult:
        """Measure all frames added so far."""
        frames = LabelledFrames.merge(self._parts)
        return measure(frames, self._dataset, self._settings, self._postprocess, split)


@dataclass(frozen=True)
class ClassFigures:
    """One class, or a group of classes. A figure is -1 where there is no ground truth.

    `missed` and `false` are counted at the confusion matrix' threshold; a box taken for another class is both.
    """

    name: str
    AP: float
    AP_50: float
    boxes: int
    missed: int
    false: int


@dataclass(frozen=True)
class SequenceFigures:
    """One sequence alone: means over the classes that it has."""

    name: str
    AP: float
    AP_50: float
    frames: int
    boxes: int


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found; `modules.evaluation.results` writes it."""

    metrics: dict[str, float]  # AP, AP_50, ...; names without prefix; -1: no ground truth
    classes: list[ClassFigures]
    groups: list[ClassFigures]
    sequences: list[SequenceFigures]  # that have ground truth, the worst first
    confusion: ConfusionMatrix
    protocol: dict[str, Any]
    frames: LabelledFrames  # everything that was added, unfiltered

    @property
    def num_frames(self) -> int:
        """Frames that the figures are measured on."""
        return self.protocol["evaluated_frames"]


def matches_of(
    frames: LabelledFrames, num_classes: int, score: str, use_classes: bool = True, area_scale: float = 1.0
) -> Matches:
    """COCO matching of filtered frames under a score, `product` or `class`."""
    truth, predictions = frames.truth, frames.predictions
    return match(
        truth.frame,
        truth.class_id,
        truth.xywh,
        predictions.frame,
        predictions.class_id,
        predictions.xywh,
        predictions.score(score),
        num_classes,
        use_classes,
        area_scale,
    )


def measure(
    frames: LabelledFrames,
    dataset: DatasetConfig,
    settings: EvaluationConfig,
    postprocess: PostprocessConfig | None,
    split: str,
) -> EvaluationResult:
    """The protocol applied to frames that lie in memory."""
    kept = apply_box_filter(frames, dataset.eval_box_filter)
    num_classes = dataset.num_classes
    matches = matches_of(kept, num_classes, settings.score)
    curves = coco.accumulate(matches)
    by_class_confidence = coco.accumulate(matches_of(kept, num_classes, "class")).summary()
    agnostic = coco.accumulate(matches_of(kept, num_classes, "class", use_classes=False)).summary()
    confusion = confusion_matrix(
        kept.truth,
        kept.predictions,
        kept.predictions.score(settings.score),
        dataset.classes,
        settings.confusion_threshold,
    )
    classes = [_class_figures(curves, confusion, index) for index in range(num_classes)]
    groups = [_group_figures(name, members, classes) for name, members in dataset.class_groups.items()]
    metrics = curves.summary()
    metrics |= _sizes_on_the_sensor(kept, metrics, dataset, settings.score)
    for name in ("AP", "AP_50"):
        metrics[f"{name}_class_confidence"] = by_class_confidence[name]
        metrics[f"{name}_class_agnostic"] = agnostic[name]
        metrics |= {f"{name}/{c.name}": getattr(c, name) for c in classes if c.boxes}
        metrics |= {f"{name}_group/{g.name}": getattr(g, name) for g in groups if g.boxes}
    protocol = describe_protocol(dataset, settings, postprocess, split, len(frames), len(kept))
    sequences = _sequence_figures(WeightedAp.of(matches, kept.sequence, len(kept.sequence_names)), kept)
    return EvaluationResult(metrics, classes, groups, sequences, confusion, protocol, frames)


SIZES = ("AP_S", "AP_M", "AP_L")


def _sizes_on_the_sensor(
    kept: LabelledFrames, metrics: dict[str, float], dataset: DatasetConfig, score: str
) -> dict[str, float]:
    """AP of small, medium and large boxes as they are on the sensor: of the same objects at any resolution."""
    scale = dataset.sensor_pixels_per_pixel
    if scale != 1:
        metrics = coco.accumulate(matches_of(kept, dataset.num_classes, score, area_scale=scale)).summary()
    return {f"{name}_sensor": metrics[name] for name in SIZES}


def _sequence_figures(weighted: WeightedAp, kept: LabelledFrames) -> list[SequenceFigures]:
    ap = weighted.each_group()
    every, at_50 = mean_over_classes(ap), mean_over_classes(ap[:, :, :1])
    frames = np.bincount(kept.sequence, minlength=weighted.num_groups)
    boxes = weighted.num_truth.sum(axis=0)
    figures = [
        SequenceFigures(name, float(every[i]), float(at_50[i]), int(frames[i]), int(boxes[i]))
        for i, name in enumerate(kept.sequence_names)
        if boxes[i]
    ]
    return sorted(figures, key=lambda each: (each.AP, each.name))


def _class_figures(curves: coco.Curves, confusion: ConfusionMatrix, index: int) -> ClassFigures:
    figures = curves.summary(index)
    return ClassFigures(
        confusion.labels[index],
        figures["AP"],
        figures["AP_50"],
        confusion.boxes(index),
        confusion.missed(index),
        confusion.false(index),
    )


def _group_figures(name: str, members: Sequence[str], classes: Sequence[ClassFigures]) -> ClassFigures:
    """Means over the group's classes that have ground truth."""
    figures = [c for c in classes if c.name in members]
    measured = [c for c in figures if c.boxes]

    def mean(key: str) -> float:
        return float(np.mean([getattr(c, key) for c in measured])) if measured else coco.NO_GROUND_TRUTH

    counts = [sum(getattr(c, key) for c in figures) for key in ("boxes", "missed", "false")]
    return ClassFigures(name, mean("AP"), mean("AP_50"), *counts)
