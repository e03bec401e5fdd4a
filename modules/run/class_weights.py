"""Weights of classes in the loss, counted from the training labels before the first step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from config.errors import UserError
from config.schema import TrainConfig
from modules.data import EventDataModule
from modules.detection import DetectionModule


def weigh_classes(config: TrainConfig, data: EventDataModule, module: DetectionModule) -> Iterator[str]:
    """Hand the training set's boxes per class to the loss where it asks for them, and tell what came of it."""
    kind = config.model.loss.class_weight.kind
    if kind is None:
        return
    index = data.index("train")
    counts = index.class_counts.sum(axis=0, dtype=np.int64)
    if not counts.any():
        raise UserError(f"{index.split} has no boxes to count. Set model.loss.class_weight.kind=null")
    weights = module.detector.head.weigh_classes(counts).tolist()
    rows = zip(config.dataset.classes, counts.tolist(), weights, strict=True)
    told = ", ".join(f"{name} {weight:.3g} ({count:,})" for name, count, weight in rows if count)
    yield f"Weights of classes in the loss ({kind}; boxes of {index.split}): {told}"
    absent = [name for name, count in zip(config.dataset.classes, counts, strict=True) if not count]
    if absent:
        yield f"No weight, for want of any box: {', '.join(absent)}. The network cannot learn them from this set"
