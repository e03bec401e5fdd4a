"""The Prophesee protocol: which boxes count, and the statement that goes with every figure.

Perot et al., "Learning to Detect Objects with a 1 Megapixel Event Camera": boxes that are small or come early are
dropped, ground truth and predictions alike; frames left without ground truth do not count; then COCO's AP.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray

from config.schema import BoxFilterConfig, DatasetConfig, EvaluationConfig, PostprocessConfig
from modules.evaluation.confusion import MATCH_IOU
from modules.evaluation.labelled_frames import Boxes, LabelledFrames
from modules.evaluation.matching import MAX_DETECTIONS


def apply_box_filter(frames: LabelledFrames, box_filter: BoxFilterConfig) -> LabelledFrames:
    """Drop small and early boxes, then the frames that have no ground truth left, with their predictions."""

    def kept(boxes: Boxes) -> Bool[ndarray, " n"]:
        width, height = boxes.xywh[:, 2], boxes.xywh[:, 3]
        large = (width >= box_filter.min_side) & (height >= box_filter.min_side)
        large &= width**2 + height**2 >= box_filter.min_diagonal**2
        return large & (frames.t_us[boxes.frame] > box_filter.skip_first_ms * 1000)

    truth = frames.truth.rows(kept(frames.truth))
    finite = np.isfinite(frames.predictions.score("product")) & np.isfinite(frames.predictions.xywh).all(axis=1)
    predictions = frames.predictions.rows(kept(frames.predictions) & finite)
    has_truth = np.isin(np.arange(len(frames)), truth.frame)
    return replace(frames, truth=truth, predictions=predictions).mask(has_truth)


def box_filter_of(protocol: Mapping[str, Any]) -> BoxFilterConfig:
    """The filter of a stored protocol, in pixels of the frame as loaded."""
    return BoxFilterConfig(**protocol["box_filter_px"])


def describe_protocol(
    dataset: DatasetConfig,
    settings: EvaluationConfig,
    postprocess: PostprocessConfig | None,
    split: str,
    labelled_frames: int,
    evaluated_frames: int,
) -> dict[str, Any]:
    """All that a figure depends on, besides the predictions."""
    return {
        "dataset": dataset.name,
        "compares_with": dataset.compares_with,
        "protocols": names_of(dataset, settings, postprocess),
        "split": split,
        "only": list(dataset.only),
        "classes": list(dataset.classes),
        "class_groups": {name: list(members) for name, members in dataset.class_groups.items()},
        "window_ms": dataset.representation.window_ms,
        "resolution_hw": list(dataset.loaded_hw),
        "sensor_hw": list(dataset.resolution_hw),
        "box_filter_px": dataset.eval_box_filter.model_dump(),
        "score": settings.score,
        "confidence_threshold": postprocess.confidence_threshold if postprocess else None,
        "nms_threshold": postprocess.nms_threshold if postprocess else None,
        "max_detections": MAX_DETECTIONS[-1],
        "confusion_threshold": settings.confusion_threshold,
        "confusion_iou": MATCH_IOU,
        "labelled_frames": labelled_frames,
        "evaluated_frames": evaluated_frames,
        "metrics": METRIC_NOTES,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
        },
    }


def names_of(dataset: DatasetConfig, settings: EvaluationConfig, postprocess: PostprocessConfig | None) -> list[str]:
    """Protocols of evaluation.protocols under which these settings measure."""
    if postprocess is None:
        return []
    stated = (settings.score, postprocess.confidence_threshold, postprocess.nms_threshold, dataset.eval.box_filter)
    return [
        name
        for name, each in settings.protocols.items()
        if stated
        == (each.score, each.confidence_threshold, each.nms_threshold, each.box_filter or dataset.eval.box_filter)
    ]


METRIC_NOTES = {
    "AP": "mean over classes that have ground truth, predictions ranked by `score`: product = objectness * class "
    "confidence, class = class confidence alone; -1: no ground truth",
    "AP_class_confidence": "AP with predictions ranked by class confidence alone, the convention of RVT",
    "AP_S": "area below 32 x 32, AP_M: to 96 x 96, AP_L: above, in pixels of the frame as loaded (resolution_hw), the "
    "convention of RVT: at another resolution these are other objects",
    "AP_S_sensor": "the same in pixels of the sensor (sensor_hw), with AP_M_sensor and AP_L_sensor: the same objects "
    "at any resolution",
    "AP_class_agnostic": "AP with classes ignored, ranked by class confidence, which eTraM's fork of RVT logs as AP",
}
