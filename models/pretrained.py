"""Checkpoints, ours and other people's, to weights in our names. Loading never runs code from the file.

Read are our own checkpoints, checkpoints of RVT (github.com/uzh-rpg/RVT) and of its forks with a `PlainLSTM2d`, and
bare state dicts of either.
"""

from __future__ import annotations

import re

# RVT's names -> ours, applied in this order.
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


def rename(key: str) -> str:
    """Our name of one of RVT's parameters; our own names stay as they are."""
    for pattern, replacement in RENAMES:
        key = pattern.sub(replacement, key)
    return key
