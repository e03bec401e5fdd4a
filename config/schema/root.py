"""The typed configuration tree. YAML meets code here and nowhere else.

Keys carry RVT's names, so that people's commands and YAML files go on working; derived values are properties.
`config.loading` turns a composed Hydra config into one of the two roots, `TrainConfig` or `ValidationConfig`.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from config.schema.base import Duration, FolderName, Line, NumWorkers, Probability, Size, Strict, UserPath, listed
from config.schema.dataset import BoxFilterConfig, DatasetConfig
from config.schema.model import ModelConfig

LoggerName = Literal["wandb", "tensorboard", "csv"]
# RVT's 16 and Lightning's names
Precision = Literal["auto", 16, 32, "16", "32", "bf16", "16-mixed", "bf16-mixed", "32-true"]
Gpus = Literal["auto"] | NonNegativeInt | Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]


class ReproduceConfig(Strict):
    seed_everything: Annotated[int, Field(ge=0, lt=2**32)] | None
    deterministic_flag: bool
    benchmark: bool


class LrSchedulerConfig(Strict):
    """OneCycle; `final_div_factor` has RVT's meaning: final rate = learning_rate / final_div_factor."""

    use: bool
    total_steps: Duration
    pct_start: Annotated[float, Field(gt=0, lt=1)]
    div_factor: Annotated[float, Field(ge=1)]
    final_div_factor: Annotated[float, Field(ge=1)]


class EarlyStoppingConfig(Strict):
    patience: PositiveInt | None  # validations in a row without a gain; None: off
    min_delta: Annotated[float, Field(ge=0, lt=1)]  # a gain is more than this
    metric: Literal["AP", "AP_50", "AP_75", "AP_S", "AP_M", "AP_L"]


class TrainingConfig(Strict):
    precision: Precision | None
    max_epochs: Duration
    max_steps: Duration
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    gradient_clip_val: NonNegativeFloat
    accumulate_grad_batches: Size  # batches whose mean gradient one step takes
    limit_train_batches: Annotated[float, Field(gt=0, le=1)] | PositiveInt
    lr_scheduler: LrSchedulerConfig
    freeze: Annotated[tuple[str, ...], BeforeValidator(listed)]  # parts of the network, see config.freezing
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None  # of the average of the weights that is validated
    early_stopping: EarlyStoppingConfig
    profiler: Literal["simple", "pytorch"] | None
    activation_checkpointing: bool
    max_damaged_chunks: NonNegativeInt  # chunks that the loader could not read before the run stops
    requeue: bool  # of the SLURM job, by SIGTERM or SIGUSR1
    max_skipped_steps: PositiveInt  # steps with a non-finite loss or gradient in a row before the run stops
    # settings laid over all others, one stage after the other, see config.stages; older checkpoints lack it
    stages: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)] | None = None


class ValidationLoopConfig(Strict):
    limit_val_batches: Annotated[float, Field(ge=0, le=1)] | NonNegativeInt
    val_check_interval: Duration | None  # steps
    check_val_every_n_epoch: Duration | None


class ProtocolConfig(Strict):
    """How somebody's figures were measured; a box filter of null is the data set's."""

    score: Literal["product", "class"]
    confidence_threshold: Probability
    nms_threshold: Probability
    class_agnostic: bool = False  # what is called AP there ignores classes
    box_filter: BoxFilterConfig | None = None  # in sensor pixels
    source: Line  # whose protocol it is, and where that can be read


class EvaluationConfig(Strict):
    score: Literal["product", "class"]
    confusion_threshold: Probability
    protocols: dict[FolderName, ProtocolConfig] = Field(default_factory=dict)  # older checkpoints lack it


class BatchSizeConfig(Strict):
    train: Size
    eval: Size


class NumWorkersConfig(Strict):
    train: NumWorkers
    eval: NumWorkers


class HardwareConfig(Strict):
    num_workers: NumWorkersConfig
    gpus: Gpus
    num_nodes: PositiveInt | None  # what the launcher says where null
    dist_backend: Literal["nccl", "gloo"]
    loader_timeout_s: NonNegativeInt  # 0: wait for ever


class HighDimConfig(Strict):
    enable: bool
    n_samples: Size


class TrainLoggingConfig(Strict):
    log_every_n_steps: Duration


class ValidationLoggingConfig(Strict):
    high_dim: HighDimConfig


class LoggingConfig(Strict):
    train: TrainLoggingConfig
    validation: ValidationLoggingConfig


class WandbConfig(Strict):
    project_name: FolderName  # what WandB takes, too
    group_name: Line | None


class ExperimentConfig(Strict):
    """What a run is for; scripts/export_experiment.py writes it down."""

    name: Line | None = None
    hypothesis: Line | None = None


class CheckpointConfig(Strict):
    every_n_steps: Duration | None
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
    run_root: UserPath
    trust_checkpoint: bool
    weights_key: Line | None = None  # the default: configs in older checkpoints lack it
    experiment: ExperimentConfig = ExperimentConfig()
    notes: dict[str, Any] = Field(default_factory=dict)  # what an experiment says of itself; kept with the run

    @property
    def loggers(self) -> tuple[LoggerName, ...]:
        return (self.logger,) if isinstance(self.logger, str) else self.logger

    @property
    def input_hw(self) -> tuple[int, int]:
        """Frame size after padding: the smallest multiple of unit_px * partition_split_32 that holds the frame."""
        step = self.model.backbone.unit_px * self.model.backbone.partition_split_32
        return self.partition_size[0] * step, self.partition_size[1] * step

    @property
    def partition_size(self) -> tuple[int, int]:
        """Height and width of an attention window, in cells of any stage's feature map.

        With a stem of stride 2 all maps have twice the height and width, and windows the same number of cells: they
        still divide every stage's map.
        """
        return self.windows_of(self.model.backbone.partition_split_32)

    def windows_of(self, split: int) -> tuple[int, int]:
        """Height and width of an attention window for a partition_split_32."""
        step = self.model.backbone.unit_px * split
        height, width = self.dataset.loaded_hw
        return -(-height // step), -(-width // step)


class TrainConfig(Config):
    checkpoint: CheckpointConfig
    resume: Annotated[str, AfterValidator(os.path.expanduser)] | None  # latest, a run id, or a path
    weights: UserPath | None
    weights_classes: Literal["same", "new"] = "same"
    weights_partial: bool = False
    check: bool


def _switch(value: object) -> object:
    """RVT's commands say use_test_set=1."""
    return bool(value) if value in (0, 1) else value


class ValidationConfig(Config):
    checkpoint: UserPath
    protocols: Annotated[tuple[str, ...], BeforeValidator(listed)] = ()  # names of evaluation.protocols
    stage: PositiveInt | None = None  # whose frames are read; None: those of the checkpoint's stage
    use_test_set: Annotated[bool, BeforeValidator(_switch)]
