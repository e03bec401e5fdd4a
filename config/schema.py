"""The typed configuration tree. YAML meets code here and nowhere else.

Keys carry RVT's names, so that people's commands and YAML files go on working; derived values are properties.
`config.loading.load_config` turns a composed Hydra config into one of the two roots, `TrainConfig` or `ValidationConfig`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

Probability = Annotated[float, Field(ge=0, le=1)]
Size2d = tuple[PositiveInt, PositiveInt]  # height, width
LoggerName = Literal["wandb", "tensorboard", "csv"]


class Strict(BaseModel):
    """Base of every section: unknown keys are errors, values cannot be written back."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- dataset ---------------------------------------------------------------------------------------------------------


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
    """`zoom_in` is absent for streams: it would have to choose its window before the boxes of later chunks are known."""

    prob: Probability
    zoom_in: ZoomDirectionConfig | None = None
    zoom_out: ZoomDirectionConfig


class AugmentationConfig(Strict):
    prob_hflip: Probability
    rotate: RotateConfig
    zoom: ZoomConfig


class DataAugmentationConfig(Strict):
    random: AugmentationConfig
    stream: AugmentationConfig


class RandomSamplingConfig(Strict):
    weighted_sampling: bool


class MixedSamplingConfig(Strict):
    """Share of lanes per kind; at least one lane of each."""

    w_stream: PositiveFloat
    w_random: PositiveFloat


class TrainSamplingConfig(Strict):
    sampling: Literal["stream", "random", "mixed"]
    random: RandomSamplingConfig
    mixed: MixedSamplingConfig


class BoxFilterConfig(Strict):
    """Boxes that the evaluation keeps, in sensor pixels (halved at half resolution); ground truth and predictions alike."""

    min_diagonal: NonNegativeFloat
    min_side: NonNegativeFloat
    skip_first_ms: NonNegativeFloat  # boxes must be strictly later than this


class EvalSamplingConfig(Strict):
    sampling: Literal["stream"]
    box_filter: BoxFilterConfig


class RepresentationConfig(Strict):
    """Stacked histogram: 2 * bins channels of uint8, channel = polarity * bins + bin."""

    window_ms: PositiveInt
    bins: PositiveInt
    count_cutoff: Annotated[int, Field(ge=1, le=255)]


class PreprocessingConfig(Strict):
    """What scripts/preprocess.py keeps of a recording's boxes, and when; sizes in sensor pixels."""

    class_ids: dict[NonNegativeInt, str]  # id in the *_bbox.npy files -> class name; other ids are dropped
    first_label_ms: NonNegativeFloat
    label_interval_ms: PositiveFloat
    label_jitter_ms: NonNegativeFloat
    min_box_diagonal: NonNegativeFloat
    min_box_side: NonNegativeFloat
    max_box_width_fraction_train: Annotated[float, Field(gt=0, le=1)] | None


class DatasetConfig(Strict):
    name: str
    path: Path
    classes: Annotated[tuple[str, ...], Field(min_length=1)]  # in id order
    class_groups: dict[str, tuple[str, ...]]
    ev_repr_name: str
    representation: RepresentationConfig
    sequence_length: PositiveInt  # frames per chunk, the L of [L, B, C, H, W]
    resolution_hw: Size2d  # of the sensor
    downsample_by_factor_2: bool
    only_load_end_labels: bool
    train: TrainSamplingConfig
    eval: EvalSamplingConfig
    data_augmentation: DataAugmentationConfig
    preprocessing: PreprocessingConfig

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def frame_hw(self) -> tuple[int, int]:
        """Height and width of the frames as loaded, before padding."""
        scale = 2 if self.downsample_by_factor_2 else 1
        return self.resolution_hw[0] // scale, self.resolution_hw[1] // scale

    @property
    def channels(self) -> int:
        return 2 * self.representation.bins

    @property
    def frames_file_name(self) -> str:
        """Name of the HDF5 file of a sequence in the reference's layout."""
        return "event_representations_ds2_nearest.h5" if self.downsample_by_factor_2 else "event_representations.h5"

    @property
    def eval_box_filter(self) -> BoxFilterConfig:
        """The evaluation's box filter in pixels of the loaded frames."""
        scale = 2 if self.downsample_by_factor_2 else 1
        sensor = self.eval.box_filter
        return BoxFilterConfig(
            min_diagonal=sensor.min_diagonal / scale,
            min_side=sensor.min_side / scale,
            skip_first_ms=sensor.skip_first_ms,
        )


# --- model -----------------------------------------------------------------------------------------------------------


class CompileArgsConfig(Strict):
    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"


class CompileConfig(Strict):
    enable: bool
    args: CompileArgsConfig = CompileArgsConfig()


class StemConfig(Strict):
    patch_size: Literal[4]


class DownsampleConfig(Strict):
    type: Literal["patch"]
    overlap: bool
    norm_affine: bool


class AttentionConfig(Strict):
    """`partition_size` follows from the resolution (see `Config.partition_size`); null, or RVT's explicit pair."""

    use_torch_mha: Literal[False]
    partition_size: Size2d | None
    dim_head: PositiveInt
    attention_bias: bool
    mlp_activation: Literal["gelu", "relu", "silu"]
    mlp_gated: bool
    mlp_bias: bool
    mlp_ratio: PositiveFloat
    drop_mlp: Probability
    drop_path: Probability
    ls_init_value: NonNegativeFloat


class LstmConfig(Strict):
    dws_conv: bool
    dws_conv_only_hidden: bool
    dws_conv_kernel_size: PositiveInt
    drop_cell_update: Probability


class StageConfig(Strict):
    downsample: DownsampleConfig
    attention: AttentionConfig
    lstm: LstmConfig


class BackboneConfig(Strict):
    name: Literal["MaxViTRNN"]
    compile: CompileConfig
    input_channels: PositiveInt
    enable_masking: bool
    partition_split_32: PositiveInt
    embed_dim: PositiveInt
    dim_multiplier: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    num_blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    in_res_hw: Size2d | None  # follows from the data set; RVT's key, checked when given
    stem: StemConfig
    stage: StageConfig

    @property
    def stage_dims(self) -> tuple[int, ...]:
        return tuple(self.embed_dim * multiplier for multiplier in self.dim_multiplier)


class FpnConfig(Strict):
    name: Literal["PAFPN"]
    compile: CompileConfig
    depth: PositiveFloat
    in_stages: tuple[Literal[2], Literal[3], Literal[4]]
    depthwise: bool
    act: Literal["silu", "relu", "lrelu"]


class HeadConfig(Strict):
    """`num_classes: null` takes the data set's."""

    name: Literal["YoloX"]
    compile: CompileConfig
    num_classes: PositiveInt | None
    depthwise: bool
    act: Literal["silu", "relu", "lrelu"]


class PostprocessConfig(Strict):
    confidence_threshold: Probability
    nms_threshold: Probability


class ModelConfig(Strict):
    name: Literal["rnndet"]
    backbone: BackboneConfig
    fpn: FpnConfig
    head: HeadConfig
    postprocess: PostprocessConfig


# --- general ---------------------------------------------------------------------------------------------------------


class ReproduceConfig(Strict):
    seed_everything: NonNegativeInt | None
    deterministic_flag: bool
    benchmark: bool


class LrSchedulerConfig(Strict):
    """OneCycle; `final_div_factor` has RVT's meaning: final rate = learning_rate / final_div_factor."""

    use: bool
    total_steps: PositiveInt
    pct_start: Annotated[float, Field(gt=0, lt=1)]
    div_factor: Annotated[float, Field(ge=1)]
    final_div_factor: Annotated[float, Field(ge=1)]


class TrainingConfig(Strict):
    precision: Literal[16, 32, 64, "16", "32", "64", "16-mixed", "bf16-mixed", "bf16-true", "32-true"] | None
    max_epochs: PositiveInt
    max_steps: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    gradient_clip_val: NonNegativeFloat
    limit_train_batches: Annotated[float, Field(gt=0)] | PositiveInt
    lr_scheduler: LrSchedulerConfig
    activation_checkpointing: bool
    max_skipped_steps: PositiveInt  # steps with a non-finite loss or gradient in a row before the run stops


class ValidationLoopConfig(Strict):
    limit_val_batches: Annotated[float, Field(ge=0)] | NonNegativeInt
    val_check_interval: PositiveInt | None  # steps
    check_val_every_n_epoch: PositiveInt | None


class EvaluationConfig(Strict):
    score: Literal["product", "class"]
    confusion_threshold: Probability


class BatchSizeConfig(Strict):
    train: PositiveInt
    eval: PositiveInt


class NumWorkersConfig(Strict):
    train: NonNegativeInt
    eval: NonNegativeInt


class HardwareConfig(Strict):
    num_workers: NumWorkersConfig
    gpus: Literal["auto"] | NonNegativeInt | tuple[NonNegativeInt, ...]
    dist_backend: Literal["nccl", "gloo"]
    loader_timeout_s: NonNegativeInt  # 0: wait for ever


class HighDimConfig(Strict):
    enable: bool
    n_samples: PositiveInt


class TrainLoggingConfig(Strict):
    log_every_n_steps: PositiveInt


class ValidationLoggingConfig(Strict):
    high_dim: HighDimConfig


class LoggingConfig(Strict):
    train: TrainLoggingConfig
    validation: ValidationLoggingConfig


class WandbConfig(Strict):
    project_name: Annotated[str, Field(min_length=1)]
    group_name: str | None


class CheckpointConfig(Strict):
    every_n_steps: PositiveInt | None
    every_n_minutes: PositiveFloat | None
    keep_best: NonNegativeInt
    max_failures: PositiveInt  # failed saves in a row before the run ends with an error


class Config(Strict):
    """What training and validation share."""

    dataset: DatasetConfig
    model: ModelConfig
    reproduce: ReproduceConfig
    training: TrainingConfig
    validation: ValidationLoopConfig
    evaluation: EvaluationConfig
    batch_size: BatchSizeConfig
    hardware: HardwareConfig
    logging: LoggingConfig
    wandb: WandbConfig
    logger: LoggerName | tuple[LoggerName, ...]
    run_root: Path
    trust_checkpoint: bool

    @property
    def loggers(self) -> tuple[LoggerName, ...]:
        return (self.logger,) if isinstance(self.logger, str) else self.logger

    @property
    def input_hw(self) -> tuple[int, int]:
        """Frame size after padding: the smallest multiple of 32 * partition_split_32 that holds the loaded frame."""
        step = 32 * self.model.backbone.partition_split_32
        height, width = self.dataset.frame_hw
        return -(-height // step) * step, -(-width // step) * step

    @property
    def partition_size(self) -> tuple[int, int]:
        """Height and width of an attention window, in cells of any stage's feature map."""
        step = 32 * self.model.backbone.partition_split_32
        return self.input_hw[0] // step, self.input_hw[1] // step


class TrainConfig(Config):
    checkpoint: CheckpointConfig
    resume: str | None  # latest, a run id, or a path
    weights: Path | None
    check: bool


class ValidationConfig(Config):
    checkpoint: Path
    use_test_set: bool


def representation_of(ev_repr_name: str) -> tuple[int, int] | None:
    """Window in ms and number of bins told by a folder name such as `stacked_histogram_dt=50_nbins=10`."""
    match = re.fullmatch(r"stacked_histogram_dt=(\d+)_nbins=(\d+)", ev_repr_name)
    return (int(match[1]), int(match[2])) if match else None
