"""The network's parts against each other, and against the data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from config.composition import MISSING
from config.errors import Problem
from config.schema import ClassWeightConfig, Config, FocalConfig, LossConfig, ModelConfig, SizeWeightConfig
from config.search_path import SearchPath

PATCH_SIZES = (4, 3, 2)
FPN_STAGES = ((2, 3, 4), (1, 2, 3, 4))


def bare_sections(raw: dict[str, Any]) -> list[str]:
    """Parts of the network that a skeleton such as model=rnndet leaves open."""
    model = raw.get("model")
    if not isinstance(model, dict):
        return []
    parts = {part: model.get(part) for part in ("backbone", "fpn", "head")}
    return [
        f"model.{part}"
        for part, settings in parts.items()
        if not isinstance(settings, dict) or settings.get("name", MISSING) == MISSING
    ]


def skeleton_problem(bare: Sequence[str], search: SearchPath) -> Problem:
    """What is missing, and all that would fill it."""
    lines = [f"is a skeleton: {', '.join(bare)} missing. Choose a complete model"]
    lines += [search.listing("model", complete_only=True), "  or an experiment, which brings one", search.experiments()]
    return Problem("model", "\n".join(lines))


def check_model(model: ModelConfig) -> Iterator[Problem]:
    """Attention heads must divide the channels of every stage; a map must keep its size."""
    stage = model.backbone.stage
    lstm = stage.lstm
    if ":" not in stage.cell and stage.cell_options:
        yield Problem(
            "model.backbone.stage.cell_options",
            f"are those of a cell of your own; cell={stage.cell} has the section model.backbone.stage.{stage.cell}",
        )
    if ":" not in stage.cell and getattr(stage, stage.cell) is None:
        yield Problem(
            f"model.backbone.stage.{stage.cell}",
            f"is missing: model.backbone.stage.cell={stage.cell} reads its settings there. Take the section from "
            "config/model/maxvit_yolox/default.yaml",
        )
    loss = model.loss
    if ":" not in loss.name and loss.options:
        message = f"are those of a loss of your own; name={loss.name} has model.loss.weights and the keys beside it"
        yield Problem("model.loss.options", message)
    yield from _check_loss(loss)
    if lstm is not None and lstm.dws_conv and lstm.dws_conv_kernel_size % 2 == 0:
        yield Problem(
            "model.backbone.stage.lstm.dws_conv_kernel_size",
            f"{lstm.dws_conv_kernel_size} is even: only an odd kernel keeps the size of the hidden state",
        )
    if model.backbone.stem.patch_size not in PATCH_SIZES:
        yield Problem(
            "model.backbone.stem.patch_size",
            f"is {model.backbone.stem.patch_size}; 4 (RVT's), 3 or 2. Another stride makes maps that do not divide "
            "into whole attention windows",
        )
    if model.fpn.in_stages not in FPN_STAGES:
        yield Problem(
            "model.fpn.in_stages",
            f"is {list(model.fpn.in_stages)}; {' or '.join(str(list(stages)) for stages in FPN_STAGES)}",
        )
    dim_head = model.backbone.stage.attention.dim_head
    for dim in model.backbone.stage_dims:
        if dim % dim_head:
            yield Problem(
                "model.backbone.stage.attention.dim_head",
                f"{dim_head} does not divide the {dim} channels of a stage "
                f"(model.backbone.embed_dim={model.backbone.embed_dim})",
            )
            return


def _check_loss(loss: LossConfig) -> Iterator[Problem]:
    """A setting that nothing reads would be a wish that is not fulfilled."""
    if ":" in loss.name:
        for name in loss.own_settings:
            yield Problem(f"model.loss.{name}", f"is one of name=yolox; {loss.name} has model.loss.options")
        return
    size = loss.size_weight
    if size.kind is None and size != SizeWeightConfig():
        message = "is null, but other keys of model.loss.size_weight are set: exponential, step or linear"
        yield Problem("model.loss.size_weight.kind", message)
    if size.kind == "step" and size.medium_area < size.small_area:
        message = f"is {size.medium_area:g}, below model.loss.size_weight.small_area={size.small_area:g}"
        yield Problem("model.loss.size_weight.medium_area", message)
    if loss.class_weight.kind is None and loss.class_weight != ClassWeightConfig():
        message = "is null, but other keys of model.loss.class_weight are set: inverse_frequency or effective_number"
        yield Problem("model.loss.class_weight.kind", message)
    if loss.class_weight.kind == "inverse_frequency" and loss.class_weight.beta != ClassWeightConfig().beta:
        yield Problem("model.loss.class_weight.beta", "is of kind=effective_number; inverse_frequency does not read it")
    focal = loss.focal
    if not focal.gamma and focal.alpha is None and focal != FocalConfig():
        message = "names parts, but gamma is 0 and alpha null: there are no focal terms"
        yield Problem("model.loss.focal.parts", message)
    if not any(loss.weights.model_dump().values()):
        yield Problem("model.loss.weights", "are all 0: nothing would be learned")


def check_network_input(config: Config) -> Iterator[Problem]:
    """Classes and channels of data and network; sizes that follow from the resolution, where they are given."""
    dataset, model = config.dataset, config.model
    num_classes = model.head.num_classes
    if num_classes is not None and num_classes != dataset.num_classes:
        yield Problem(
            "model.head.num_classes",
            f"is {num_classes}, but dataset={dataset.name} has {dataset.num_classes} classes: "
            f"{', '.join(dataset.classes)}.\nmodel.head.num_classes=null takes the data set's",
        )
    if model.backbone.input_channels != dataset.channels:
        yield Problem(
            "model.backbone.input_channels",
            f"is {model.backbone.input_channels}, but frames have {dataset.channels} channels "
            f"(2 * dataset.representation.bins={dataset.representation.bins})",
        )
    given = {
        "model.backbone.in_res_hw": (model.backbone.in_res_hw, config.input_hw),
        "model.backbone.stage.attention.partition_size": (
            model.backbone.stage.attention.partition_size,
            config.partition_size,
        ),
    }
    height, width = dataset.loaded_hw
    for key, (stated, computed) in given.items():
        if stated is not None and stated != computed:
            split = model.backbone.partition_split_32
            message = (
                f"is {list(stated)}, but frames of {height} x {width} pixels, model.backbone.stem.patch_size="
                f"{model.backbone.stem.patch_size} and model.backbone.partition_split_32={split} make it "
                f"{list(computed)}. {key}=null takes that"
            )
            splits = [other for other in range(1, 17) if config.windows_of(other) == stated]
            if splits and key.endswith("partition_size"):
                message += f"; model.backbone.partition_split_32={splits[0]} makes it {list(stated)}"
            yield Problem(key, message)
