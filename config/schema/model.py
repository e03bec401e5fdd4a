"""Typed `model` section: the network and its post-processing."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat
from pydantic_core import PydanticCustomError

from config.schema.base import RVT_UNIT_PX, ImportPath, Probability, Size, Size2d, Strict


class CompileArgsConfig(Strict):
    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"


class CompileConfig(Strict):
    enable: bool
    args: CompileArgsConfig = CompileArgsConfig()


class StemConfig(Strict):
    patch_size: Size  # stride of stage 1: 4, or 2 for maps of twice the height and width, or 3


class DownsampleConfig(Strict):
    overlap: bool
    norm_affine: bool


class AttentionConfig(Strict):
    """`partition_size` follows from the resolution (see `Config.partition_size`); null, or RVT's explicit pair."""

    partition_size: Size2d | None = None
    dim_head: Size
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
    dws_conv_kernel_size: Size
    drop_cell_update: Probability


class S5Config(Strict):
    """`state_dim: null` is the width of the stage.

    `step_scale` is the length of a window over that of the data trained on: 0.5 for windows of 25 ms after 50 ms.
    `carry_state: false` forgets the state between chunks, as the published code does.
    """

    state_dim: Size | None
    bandlimit: PositiveFloat | None
    discretization: Literal["bilinear", "zoh"]
    step_scale: PositiveFloat
    carry_state: bool


class StageConfig(Strict):
    """`cell` names the section of the recurrent cell; the others' sections may be absent.

    Or it is the import path of a class of a user's own, which gets `cell_options`.
    """

    downsample: DownsampleConfig
    attention: AttentionConfig
    cell: Literal["lstm", "s5"] | ImportPath = "lstm"
    cell_options: dict[str, Any] = Field(default_factory=dict)
    lstm: LstmConfig | None = None
    s5: S5Config | None = None


class BackboneConfig(Strict):
    name: Literal["MaxViTRNN"]
    compile: CompileConfig
    input_channels: Size
    partition_split_32: Size
    embed_dim: Size
    dim_multiplier: tuple[Size, Size, Size, Size]
    num_blocks: tuple[Size, Size, Size, Size]
    in_res_hw: Size2d | None = None  # follows from the data set; RVT's key, checked when given
    stem: StemConfig
    stage: StageConfig

    @property
    def stage_dims(self) -> tuple[int, ...]:
        return tuple(self.embed_dim * multiplier for multiplier in self.dim_multiplier)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the frame per cell of each stage's map."""
        return tuple(self.stem.patch_size * 2**stage for stage in range(len(self.dim_multiplier)))

    @property
    def unit_px(self) -> int:
        """What input and attention windows are sized in: RVT's 32 pixels, which are whole cells of every stage; with a
        stem of stride 3, a cell of the last stage.
        """
        last = self.strides[-1]
        return last if RVT_UNIT_PX % last else RVT_UNIT_PX


class FpnConfig(Strict):
    name: Literal["PAFPN"]
    compile: CompileConfig
    depth: PositiveFloat
    in_stages: tuple[Size, ...]  # [2, 3, 4], or all four for smaller objects
    depthwise: bool
    act: Literal["silu", "relu", "lrelu"]


class HeadConfig(Strict):
    """`num_classes: null` takes the data set's."""

    name: Literal["YoloX"]
    compile: CompileConfig
    num_classes: Size | None = None
    depthwise: bool
    act: Literal["silu", "relu", "lrelu"]


class LossWeightsConfig(Strict):
    iou: NonNegativeFloat = 5.0
    objectness: NonNegativeFloat = 1.0
    classification: NonNegativeFloat = 1.0


LossPart = Literal["iou", "objectness", "class"]


class SizeWeightConfig(Strict):
    """Weight of a foreground anchor by the area of its box, in pixels of the loaded frame; docs/losses.md.

    `normalise` divides by the mean over a batch's foreground anchors, so that the loss keeps its size.
    """

    kind: Literal["exponential", "step", "linear"] | None = None
    weight: Annotated[float, Field(ge=1)] = 2.0  # of the smallest boxes; large ones have 1
    small_area: PositiveFloat = 1024.0
    medium_area: PositiveFloat = 9216.0
    parts: Annotated[tuple[LossPart, ...], Field(min_length=1)] = ("iou",)
    normalise: bool = False


class ClassWeightConfig(Strict):
    """Weight of a foreground anchor by the class of its box, from the boxes per class of the training labels."""

    kind: Literal["inverse_frequency", "effective_number"] | None = None
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.9999  # of effective_number (arXiv:1901.05555)
    parts: Annotated[tuple[LossPart, ...], Field(min_length=1)] = ("class",)


def _focal_exponent(value: float) -> float:
    if value != 0 and value < 1:
        raise PydanticCustomError("gamma", "0 (off) or a number of at least 1: between them the gradient is infinite")
    return value


class FocalConfig(Strict):
    """Focal terms of the cross entropies (arXiv:1708.02002): gamma makes what is easy count less, alpha weighs
    positives with alpha and negatives with 1 - alpha.
    """

    gamma: Annotated[float, AfterValidator(_focal_exponent)] = 0.0
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    parts: Annotated[tuple[Literal["objectness", "class"], ...], Field(min_length=1)] = ("objectness", "class")


class LossConfig(Strict):
    """The default is RVT's loss. Or `name` is the import path of a class of a user's own, which gets `options`."""

    name: Literal["yolox"] | ImportPath = "yolox"
    options: dict[str, Any] = Field(default_factory=dict)
    weights: LossWeightsConfig = LossWeightsConfig()
    iou_kind: Literal["iou", "giou", "ciou"] = "iou"  # what the boxes are measured by
    size_weight: SizeWeightConfig = SizeWeightConfig()
    class_weight: ClassWeightConfig = ClassWeightConfig()
    focal: FocalConfig = FocalConfig()

    @property
    def own_settings(self) -> tuple[str, ...]:
        """Keys of name=yolox that are not at their defaults; a loss of a user's own does not read them."""
        theirs = {"name", "options"}
        default = LossConfig()
        names = (name for name in LossConfig.model_fields if name not in theirs)
        return tuple(name for name in names if getattr(self, name) != getattr(default, name))


class PostprocessConfig(Strict):
    confidence_threshold: Probability
    nms_threshold: Probability


class ModelConfig(Strict):
    name: Literal["rnndet"]
    backbone: BackboneConfig
    fpn: FpnConfig
    head: HeadConfig
    loss: LossConfig = LossConfig()
    postprocess: PostprocessConfig
