"""Early stopping: when validations have not become better for a while."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from config.schema import EarlyStoppingConfig
from modules.stage import Stage


def is_measured(value: float | None) -> bool:
    """False for COCO's -1: there is no ground truth."""
    return value is not None and value >= 0


def validations_of(stage: Stage, history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of a run's validations that a stage has made."""
    return [entry for entry in history if entry["step"] > stage.first_step or stage.first_step == 0]


def reason_to_stop(history: Sequence[Mapping[str, Any]], config: EarlyStoppingConfig) -> str | None:
    """Why a run with these validations, the last one included, should end; None if it should not.

    Validations without labelled boxes count neither way.
    """
    if config.patience is None:
        return None
    best, best_step, waited = -1.0, None, 0
    for entry in history:
        value = entry.get(config.metric)
        if value is None or not is_measured(value):
            continue
        if best_step is None or value > best + config.min_delta:
            best, best_step, waited = value, entry["step"], 0
        else:
            waited += 1
    if waited < config.patience:
        return None
    more = f" by more than {config.min_delta}" if config.min_delta else ""
    times = f"{waited} validation{'s' if waited > 1 else ''}"
    return f"val/{config.metric} has not risen{more} for {times}, since {best:.4f} at step {best_step}"
