"""Names of weights in other people's checkpoints of this network, and ours."""

from __future__ import annotations

import re

import torch
from torch import Tensor

# RVT's names, and those of its sister with S5 cells -> ours, applied in this order.
RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^yolox_head\.", "head."),
        (r"\.downsample_cf2cl\.", ".downsample."),
        (r"\.att_blocks\.", ".blocks."),
        (r"\.att_(window|grid)\.", r".\1."),
        (r"\.self_attn\.", ".attention."),
        (r"\.mlp\.net\.0\.(0|proj)\.", ".mlp.fc1."),
        (r"\.mlp\.net\.2\.", ".mlp.fc2."),
        (r"\.lstm\.conv1x1\.", ".lstm.gates."),
        (r"\.lstm\.conv3x3_dws\.", ".lstm.depthwise."),
        (r"\.s5_block\.s5\.seq\.Lambda$", ".s5.ssm.eigenvalues"),
        (r"\.s5_block\.s5\.seq\.B$", ".s5.ssm.input_matrix"),
        (r"\.s5_block\.s5\.seq\.C$", ".s5.ssm.output_matrix"),
        (r"\.s5_block\.s5\.seq\.D$", ".s5.ssm.skip"),
        (r"\.s5_block\.s5\.seq\.", ".s5.ssm."),
        (r"\.s5_block\.attn_norm\.", ".s5.norm1."),
        (r"\.s5_block\.ff_norm\.", ".s5.norm2."),
        (r"\.s5_block\.ff_enc\.", ".s5.fc1."),
        (r"\.s5_block\.ff_dec\.", ".s5.fc2."),
        (r"^fpn\.lateral_conv0\.", "fpn.reduce4."),
        (r"^fpn\.reduce_conv1\.", "fpn.reduce3."),
        (r"^fpn\.C3_p4\.", "fpn.top_down3."),
        (r"^fpn\.C3_p3\.", "fpn.top_down2."),
        (r"^fpn\.C3_n3\.", "fpn.bottom_up3."),
        (r"^fpn\.C3_n4\.", "fpn.bottom_up4."),
        (r"^fpn\.bu_conv2\.", "fpn.downsample2."),
        (r"^fpn\.bu_conv1\.", "fpn.downsample3."),
        (r"^(fpn\.(?:top_down|bottom_up)\d)\.conv1\.", r"\1.main."),
        (r"^(fpn\.(?:top_down|bottom_up)\d)\.conv2\.", r"\1.bypass."),
        (r"^(fpn\.(?:top_down|bottom_up)\d)\.conv3\.", r"\1.fuse."),
        (r"^(fpn\.(?:top_down|bottom_up)\d)\.m\.", r"\1.bottlenecks."),
        (r"\.dconv\.", ".depthwise."),
        (r"\.pconv\.", ".pointwise."),
        (r"^head\.cls_convs\.", "head.class_branches."),
        (r"^head\.reg_convs\.", "head.box_branches."),
        (r"^head\.cls_preds\.", "head.class_predictors."),
        (r"^head\.reg_preds\.", "head.box_predictors."),
        (r"^head\.obj_preds\.", "head.objectness_predictors."),
    )
)


def in_our_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a detector, by their published names or ours, by ours."""
    return _merge_plain_lstm({rename(key): value for key, value in tensors.items()})


def is_published_s5(tensors: dict[str, Tensor]) -> bool:
    """True for weights that the published code for S5 has trained, which does not use the state between chunks."""
    return any(".s5_block." in key for key in tensors)


def rename(key: str) -> str:
    """Our name of one of RVT's parameters; our own names stay as they are."""
    for pattern, replacement in RENAMES:
        key = pattern.sub(replacement, key)
    return key


def _merge_plain_lstm(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A fork's PlainLSTM2d is two convolutions with gates input, forget, output, cell; ours is one, forget first."""
    merged = dict(weights)
    for key in weights:
        if not key.endswith(".lstm.input_transform.weight"):
            continue
        lstm = key.removesuffix("input_transform.weight")
        hidden, bias = f"{lstm}hidden_transform.weight", f"{lstm}input_transform.bias"
        if (
            not {hidden, bias} <= weights.keys()
            or weights[key].shape != weights[hidden].shape
            or weights[key].ndim != 4
        ):
            continue  # then they fit nothing, and are reported as such
        halves = merged.pop(key), merged.pop(hidden)
        merged[f"{lstm}gates.weight"] = _forget_first(torch.cat(halves, dim=1))
        merged[f"{lstm}gates.bias"] = _forget_first(merged.pop(bias))
    return merged


def _forget_first(rows: Tensor) -> Tensor:
    input_, forget, output, cell = rows.tensor_split(4)
    return torch.cat((forget, input_, output, cell))
