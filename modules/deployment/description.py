"""What a detector needs to know of the frames that it gets, and what its boxes mean: all that runs it, in one place."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from config.schema import Config
from config.schema.base import Line, Probability, Size, Size2d

ExportPrecision = Literal["float32", "float16", "int8"]
METADATA_KEY = "streamrvt"  # of an exported file


class Description(BaseModel):
    """Of one trained network; an exported file carries it as JSON."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    classes: Annotated[tuple[Line, ...], Field(min_length=1)]  # in id order
    sensor_hw: Size2d
    frame_hw: Size2d  # as counted, before the network pads it
    window_ms: PositiveInt
    bins: Size
    count_cutoff: Annotated[int, Field(ge=1, le=255)]
    score: Literal["product", "class"]
    confidence_threshold: Probability
    nms_threshold: Probability
    reset_every: Size | None  # frames after which the state starts anew, where it was trained so
    label_clock: Literal["start", "recording"] | None  # dataset.preprocessing's
    time_unit: Literal["s", "ms", "us", "ns"] | None
    stream: Annotated[int, Field(ge=0)] | None

    @property
    def channels(self) -> int:
        return 2 * self.bins

    @property
    def sensor_xywh(self) -> tuple[float, float, float, float]:
        """What a box of the frame is multiplied by to be one on the sensor."""
        halved = self.frame_hw == (self.sensor_hw[0] // 2, self.sensor_hw[1] // 2)  # of odd sizes, too
        down, across = (2.0, 2.0) if halved else (s / f for s, f in zip(self.sensor_hw, self.frame_hw, strict=True))
        return across, down, across, down

    @classmethod
    def of(cls, config: Config) -> Description:
        dataset, stage = config.dataset, config.model.backbone.stage
        forgets = stage.cell == "s5" and stage.s5 is not None and not stage.s5.carry_state
        return cls(
            classes=dataset.classes,
            sensor_hw=dataset.resolution_hw,
            frame_hw=dataset.loaded_hw,
            **dataset.representation.model_dump(),
            score=config.evaluation.score,
            **config.model.postprocess.model_dump(),
            reset_every=dataset.sequence_length if forgets else None,
            label_clock=dataset.preprocessing.label_clock,
            time_unit=dataset.preprocessing.time_unit,
            stream=dataset.preprocessing.stream,
        )
