"""Typed `dataset` section: what a data set YAML says."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from config.schema.base import FolderName, Line, Probability, Size, Size2d, Strict, UserPath, listed


class FactorRange(Strict):
    min: Annotated[float, Field(ge=1)]
    max: Annotated[float, Field(ge=1)]


class RotateConfig(Strict):
    prob: Probability
    min_angle_deg: NonNegativeFloat
    max_angle_deg: NonNegativeFloat


class ZoomDirectionConfig(Strict):
    weight: NonNegativeFloat = 1
    factor: FactorRange


class ZoomConfig(Strict):
    """Streams have no `zoom_in`: its window would have to be chosen before the boxes of later chunks are known."""

    prob: Probability
    zoom_in: ZoomDirectionConfig | None = None
    zoom_out: ZoomDirectionConfig


class EventDropConfig(Strict):
    prob: Probability = 0.0
    max_share: Probability = 0.5  # of the events


class HotPixelsConfig(Strict):
    prob: Probability = 0.0
    max_number: Size = 20


class EventAugmentationConfig(Strict):
    """Of events rather than places; off by default, as RVT has none."""

    prob_polarity_flip: Probability = 0.0
    drop: EventDropConfig = EventDropConfig()
    hot_pixels: HotPixelsConfig = HotPixelsConfig()


class CopyPasteConfig(Strict):
    """Objects of other sequences, laid over the frames along their tracks; off by default, as RVT has none."""

    prob: Probability = 0.0  # that something is pasted
    max_number: Size = 3  # objects at once
    rare: NonNegativeFloat = 1.0  # weight of a class: (its boxes in the split) ** -rare
    small: NonNegativeFloat = 0.5  # weight of an object among those of its class: (its area) ** -small


class StreamCopyPasteConfig(CopyPasteConfig):
    frames: Size = 100  # of a stream, within which `prob` is drawn once, and which a paste lasts at most


class AugmentationConfig(Strict):
    prob_hflip: Probability
    rotate: RotateConfig
    zoom: ZoomConfig
    events: EventAugmentationConfig = EventAugmentationConfig()
    copy_paste: CopyPasteConfig = CopyPasteConfig()


class StreamAugmentationConfig(AugmentationConfig):
    copy_paste: StreamCopyPasteConfig = StreamCopyPasteConfig()


class DataAugmentationConfig(Strict):
    keep_emptied_frames: bool = False  # zooming in may lose all boxes of a labelled frame: true makes it background
    random: AugmentationConfig
    stream: StreamAugmentationConfig


class RandomSamplingConfig(Strict):
    weighted_sampling: bool


class MixedSamplingConfig(Strict):
    """Share of lanes per kind; at least one lane of each."""

    w_stream: PositiveFloat
    w_random: PositiveFloat


class TrainSamplingConfig(Strict):
    """`repeat_threshold`: streams with a class that a smaller share of streams has are read more often (LVIS' rule)."""

    sampling: Literal["stream", "random", "mixed"]
    repeat_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    random: RandomSamplingConfig
    mixed: MixedSamplingConfig


class BoxFilterConfig(Strict):
    """Ground truth and predictions that the evaluation keeps; in sensor pixels, scaled as the loaded frame is."""

    min_diagonal: NonNegativeFloat
    min_side: NonNegativeFloat
    skip_first_ms: NonNegativeFloat  # boxes must be strictly later than this


class EvalSamplingConfig(Strict):
    sampling: Literal["stream"]
    box_filter: BoxFilterConfig


class RepresentationConfig(Strict):
    """Stacked histogram: 2 * bins channels of uint8, channel = polarity * bins + bin."""

    window_ms: PositiveInt
    bins: Size
    count_cutoff: Annotated[int, Field(ge=1, le=255)]

    @property
    def window_us(self) -> int:
        return self.window_ms * 1000


class PreprocessingConfig(Strict):
    """What scripts/preprocess.py keeps of a recording's boxes, and when; sizes in sensor pixels."""

    class_ids: dict[NonNegativeInt, Line]  # id in the *_bbox.npy files -> class name; other ids are dropped
    first_label_ms: NonNegativeFloat
    label_interval_ms: PositiveFloat
    label_interval_follows_rate: bool = (
        True  # the interval is the multiple of the label period nearest to label_interval_ms
    )
    label_jitter_ms: NonNegativeFloat
    min_box_diagonal: NonNegativeFloat
    min_box_side: NonNegativeFloat
    max_box_width_fraction_train: Annotated[float, Field(gt=0, le=1)] | None
    time_unit: Literal["s", "ms", "us", "ns"] | None = (
        None  # of events in HDF5, npz, text; null: what the file says, or us
    )
    label_time_unit: Literal["s", "ms", "us", "ns"] | None = None  # of boxes; null: us, if that fits the events
    # Boxes count from the recording's first event (where its format defines another start, from that), or from 0 of its
    # own clock. null: from 0 in files that count from their start, else what fits all boxes
    label_clock: Literal["start", "recording"] | None = None
    stream: NonNegativeInt | None = None  # of an AEDAT4 file with several event streams; null: its only one
    reference_gen1_spacing: bool  # RVT's script puts 2 windows between labels 250 ms apart, not 5; true repeats that


class DatasetConfig(Strict):
    name: Line
    compares_with: Line | None = None  # whose figures are measured on these classes and boxes, or why nobody's are
    path: UserPath
    classes: Annotated[tuple[Line, ...], Field(min_length=1)]  # in id order
    class_groups: dict[Line, tuple[Line, ...]]
    stored_classes: tuple[Line, ...] | None = None  # of the ids in label files, where those are not `classes`
    class_map: dict[Line, Line] = Field(default_factory=dict)  # stored class -> class
    ev_repr_name: FolderName
    representation: RepresentationConfig
    only: Annotated[tuple[FolderName, ...], BeforeValidator(listed)] = ()  # sequences to validate; none: all
    sequence_length: Size  # frames per chunk, the L of [L, B, C, H, W]
    resolution_hw: Size2d  # of the sensor
    downsample_by_factor_2: bool
    frame_hw: Size2d | None = None  # of the loaded frame; null: as downsample_by_factor_2 says
    only_load_end_labels: bool
    train: TrainSamplingConfig
    eval: EvalSamplingConfig
    data_augmentation: DataAugmentationConfig
    preprocessing: PreprocessingConfig

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def label_classes(self) -> tuple[str, ...]:
        """The class of each id in the label files."""
        return self.classes if self.stored_classes is None else self.stored_classes

    @property
    def class_of_label(self) -> tuple[int, ...]:
        """Our class id of each id in the label files."""
        return tuple(self.classes.index(self.class_map.get(name, name)) for name in self.label_classes)

    @property
    def loaded_hw(self) -> tuple[int, int]:
        """Height and width of the frames as loaded, before padding."""
        return _loaded_hw(self.resolution_hw, self.downsample_by_factor_2, self.frame_hw)

    def with_frames_of(self, hw: tuple[int, int]) -> DatasetConfig:
        """The same data set with frames of another size."""
        return self.model_copy(update={"frame_hw": hw})

    @property
    def pastes(self) -> bool:
        """Whether objects of other sequences are pasted into some chunks of the training."""
        return any(kind.copy_paste.prob for kind in (self.data_augmentation.random, self.data_augmentation.stream))

    @property
    def stride(self) -> int | None:
        """Sensor pixels per row and column of the loaded frame: 1, or 2 by RVT's rule; None for sizes between."""
        return {self.resolution_hw: 1, _half(self.resolution_hw): 2}.get(self.loaded_hw)

    @property
    def scale_hw(self) -> tuple[float, float]:
        """What lengths on the sensor are multiplied by."""
        if self.stride is not None:
            return 1 / self.stride, 1 / self.stride
        return self.loaded_hw[0] / self.resolution_hw[0], self.loaded_hw[1] / self.resolution_hw[1]

    @property
    def sensor_pixels_per_pixel(self) -> float:
        """Of the frames as loaded: 4 at half resolution."""
        return 1 / (self.scale_hw[0] * self.scale_hw[1])

    @property
    def channels(self) -> int:
        return 2 * self.representation.bins

    @property
    def eval_box_filter(self) -> BoxFilterConfig:
        """The evaluation's box filter in pixels of the loaded frames."""
        # Frames are not distorted but by less than a pixel, which must not drop a box that is just large enough
        scale, sensor = min(self.scale_hw), self.eval.box_filter
        return BoxFilterConfig(
            min_diagonal=sensor.min_diagonal * scale,
            min_side=sensor.min_side * scale,
            skip_first_ms=sensor.skip_first_ms,
        )


def _half(hw: tuple[int, int]) -> tuple[int, int]:
    return hw[0] // 2, hw[1] // 2


def _loaded_hw(sensor_hw: tuple[int, int], halved: bool, frame_hw: tuple[int, int] | None) -> tuple[int, int]:
    return frame_hw or (_half(sensor_hw) if halved else sensor_hw)


def recorded_hw(section: object) -> tuple[int, int] | None:
    """`loaded_hw` of a `dataset` section that an older version may have recorded; None where that does not tell it."""
    if not isinstance(section, dict):
        return None
    sizes = [section.get("resolution_hw"), section.get("frame_hw")]
    sensor_hw, frame_hw = (tuple(size) if isinstance(size, list | tuple) and len(size) == 2 else None for size in sizes)
    return None if sensor_hw is None else _loaded_hw(sensor_hw, bool(section.get("downsample_by_factor_2")), frame_hw)


def representation_of(ev_repr_name: str) -> tuple[int, int] | None:
    """Window in ms and number of bins told by a folder name such as `stacked_histogram_dt=50_nbins=10`."""
    match = re.fullmatch(r"stacked_histogram_dt=(\d+)_nbins=(\d+)", ev_repr_name)
    return (int(match[1]), int(match[2])) if match else None
