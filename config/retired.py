"""Keys of RVT's published configs that have no meaning here: none is silently ignored."""

from __future__ import annotations

from typing import Any

from config.errors import Problem

PLAIN = "model.backbone.use_plain_lstm"
# Ignoring these changes nothing that anyone asked for: a warning says what stands in their place.
REPLACED = {
    "logging.ckpt_every_n_epochs": "checkpoints follow checkpoint.every_n_steps and checkpoint.every_n_minutes",
    "logging.train.metrics": "AP is computed in validation only; see validation.val_check_interval",
    "logging.train.log_model_every_n_steps": "checkpoints follow checkpoint.every_n_steps and stay in the run folder",
    "logging.train.high_dim": "pictures are made in validation; see logging.validation.high_dim",
    "logging.validation.high_dim.every_n_epochs": "every validation makes pictures",
    "model.backbone.T_max_chrono_init": "the plain LSTM has no chrono initialisation",
    "model.backbone.stage.s4": "there is no S4 cell",
    "model.backbone.stage.s5.dim": "the cell has the stage's width, in the published code as well, which does not read "
    "its s5.state_dim either: take this key out, and set model.backbone.stage.s5.state_dim=null",
    "wandb.wandb_runpath": "resume=RUN_ID goes on with a run, its WandB run included",
    "wandb.artifact_name": "download it, then resume=PATH goes on with its run, weights=PATH starts a new one from it",
    "wandb.artifact_local_file": "resume=PATH goes on with a checkpoint's run, weights=PATH starts a new run from it",
    "wandb.resume_only_weights": "weights=PATH starts a new run from a checkpoint's weights",
}
# Set to anything but these keys' idle values, they ask for something that another key must now be asked for.
REFUSED = {
    "wandb.wandb_runpath",
    "wandb.artifact_name",
    "wandb.artifact_local_file",
    "wandb.resume_only_weights",
    "model.backbone.stage.s5.dim",
}
# RVT, or a fork, has a choice here that is none in its published configs; any other value is refused.
FIXED: dict[str, tuple[object, str]] = {
    PLAIN: (
        True,
        "the LSTM is plain; model.backbone.stage.lstm.dws_conv=true makes it RVT's ConvLSTM",
    ),
    "model.backbone.use_enhanced_convlstm": (
        False,
        "there is no such cell; model.backbone.stage.cell takes one of your own, docs/extending.md",
    ),
    "model.backbone.enable_masking": (False, "no data set here makes token masks"),
    "model.backbone.stage.attention.use_torch_mha": (False, "attention is computed by models/layers/attention.py"),
    "model.backbone.stage.downsample.type": ("patch", "stages are down-sampled by a strided convolution"),
}
# RVT writes ??? here and fills it in code; so do we, from the resolution.
DERIVED = ("model.backbone.in_res_hw", "model.backbone.stage.attention.partition_size")
IDLE_VALUES = (None, False, "null", "false", "False", "")


def retired_key(key: str) -> str | None:
    """The entry that `key` is, or lies under, if it is retired."""
    return next((old for old in (*REPLACED, *FIXED) if key == old or key.startswith(f"{old}.")), None)


def judge(key: str, value: Any, origin: str) -> Problem | str | None:
    """A Problem where ignoring the key would change what its user wants, the text of a warning, or nothing to say."""
    old = retired_key(key)
    assert old is not None, key
    if old in FIXED:
        only, why = FIXED[old]
        typed = str(only).lower()
        return None if str(value).lower() == typed else Problem(key, f"is {value}; allowed: {typed} ({why})", origin)
    if old in REFUSED and value not in IDLE_VALUES:
        path = value if old == "wandb.artifact_local_file" else "PATH"
        return Problem(key, f"is RVT's, and is not used here; {REPLACED[old].replace('PATH', str(path))}", origin)
    return f"{key} is RVT's and has no effect here: {REPLACED[old]}"


def not_plain(raw: dict[str, Any]) -> str | None:
    """The setting by which the network of a plain config has other cells than plain LSTMs."""
    stage: Any = raw
    for part in ("model", "backbone", "stage"):
        stage = stage.get(part) if isinstance(stage, dict) else None
    if not isinstance(stage, dict):
        return None
    if stage.get("cell", "lstm") != "lstm":
        return f"model.backbone.stage.cell={stage['cell']}"
    lstm = stage.get("lstm")
    is_convolutional = isinstance(lstm, dict) and lstm.get("dws_conv") is True
    return "model.backbone.stage.lstm.dws_conv=true, which is a ConvLSTM" if is_convolutional else None


def take_out(raw: dict[str, Any]) -> dict[str, Any]:
    """Remove retired keys from a plain config, in place, and return them with their values; derived ??? go as well."""
    found = {}
    for old in (*REPLACED, *FIXED, *DERIVED):
        section, _, name = old.rpartition(".")
        node: Any = raw
        for part in section.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict) and name in node and (old not in DERIVED or node[name] == "???"):
            value = node.pop(name)
            if old not in DERIVED:
                found[old] = value
    return found
