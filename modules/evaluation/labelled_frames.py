"""Ground truth and predictions of labelled frames as flat arrays: what the evaluation keeps, gathers and stores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Self, TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64
from numpy import ndarray

from data.boxes import score


@dataclass(frozen=True)
class Boxes:
    """Ground truth, ordered by frame."""

    frame: Int32[ndarray, " n"]  # index of the frame that a box belongs to
    class_id: Int32[ndarray, " n"]
    xywh: Float32[ndarray, "n 4"]  # left, top, width, height in pixels of the frame as loaded

    def __len__(self) -> int:
        return len(self.frame)

    @classmethod
    def empty(cls) -> Self:
        return cls(
            **{
                field.name: np.zeros((0, *_ROW_SHAPES.get(field.name, ())), _DTYPES[field.name])
                for field in fields(cls)
            }
        )

    def rows(self, chosen: ndarray) -> Self:
        """The boxes of a mask or of indices."""
        return type(self)(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def with_frame(self, frame: Int32[ndarray, " n"]) -> Self:
        """The same boxes with other frame indices."""
        others = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "frame"}
        return type(self)(frame=frame.astype(np.int32), **others)

    @classmethod
    def concatenate(cls, parts: Iterable[Self]) -> Self:
        parts = [*parts, cls.empty()]
        return cls(
            **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)}
        )


@dataclass(frozen=True)
class Predictions(Boxes):
    """Boxes with the two confidences of a YOLOX head."""

    objectness: Float32[ndarray, " n"]
    class_confidence: Float32[ndarray, " n"]

    def score(self, kind: str) -> Float32[ndarray, " n"]:
        """What ranks predictions, `product` or `class`."""
        return score(self.objectness, self.class_confidence, kind)


_DTYPES = {
    "frame": np.int32,
    "class_id": np.int32,
    "xywh": np.float32,
    "objectness": np.float32,
    "class_confidence": np.float32,
}
_ROW_SHAPES = {"xywh": (4,)}


@dataclass(frozen=True)
class LabelledFrames:
    """Labelled frames of a set of sequences with ground truth and predictions; frames may have neither."""

    sequence_names: tuple[str, ...]
    sequence: Int32[ndarray, " frames"]  # index in sequence_names
    t_us: Int64[ndarray, " frames"]  # since the sequence's start
    event_count: Int64[ndarray, " frames"]  # events in the frame as loaded
    truth: Boxes
    predictions: Predictions

    def __len__(self) -> int:
        return len(self.t_us)

    @classmethod
    def merge(cls, parts: Iterable[LabelledFrames]) -> LabelledFrames:
        """All frames in the order of sequence name and time, a frame that occurs twice once.

        The order does not depend on how frames were spread over batches and ranks, and so nothing else does.
        """
        parts = list(parts)
        names = tuple(sorted({name for part in parts for name in part.sequence_names}))
        index = {name: number for number, name in enumerate(names)}
        sequence = np.concatenate(
            [np.zeros(0, np.int32)]
            + [np.array([index[name] for name in part.sequence_names], np.int32)[part.sequence] for part in parts]
        )
        t_us = np.concatenate([np.zeros(0, np.int64)] + [part.t_us for part in parts])
        event_count = np.concatenate([np.zeros(0, np.int64)] + [part.event_count for part in parts])
        offsets = np.cumsum([0] + [len(part) for part in parts])
        truth = Boxes.concatenate(p.truth.with_frame(p.truth.frame + o) for p, o in zip(parts, offsets, strict=False))
        predictions = Predictions.concatenate(
            p.predictions.with_frame(p.predictions.frame + o) for p, o in zip(parts, offsets, strict=False)
        )
        order = np.lexsort((t_us, sequence))
        repeated = np.zeros(len(order), bool)
        repeated[1:] = (np.diff(sequence[order]) == 0) & (np.diff(t_us[order]) == 0)
        return cls(names, sequence, t_us, event_count, truth, predictions).take(order[~repeated])

    def take(self, order: Int64[ndarray, " kept"]) -> LabelledFrames:
        """The frames of these indices, in this order."""
        place = np.full(len(self), -1, np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        return LabelledFrames(
            self.sequence_names,
            self.sequence[order],
            self.t_us[order],
            self.event_count[order],
            _moved(self.truth, place),
            _moved(self.predictions, place),
        )

    def with_predictions(self, chosen: Bool[ndarray, " n"]) -> LabelledFrames:
        """All frames with the chosen predictions only."""
        return replace(self, predictions=self.predictions.rows(chosen))

    def mask(self, chosen: Bool[ndarray, " frames"]) -> LabelledFrames:
        """The chosen frames."""
        return self.take(np.flatnonzero(chosen))


AnyBoxes = TypeVar("AnyBoxes", bound=Boxes)


def _moved(boxes: AnyBoxes, place: Int32[ndarray, " frames"]) -> AnyBoxes:
    """Boxes whose frame f becomes place[f], ordered by frame; those of a frame without a place are dropped."""
    frame = place[boxes.frame]
    order = np.argsort(frame, kind="stable")
    order = order[frame[order] >= 0]
    return boxes.rows(order).with_frame(frame[order])
