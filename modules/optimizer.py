"""AdamW under a one-cycle learning rate, with the reference's meaning of `final_div_factor`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from config.schema import LrSchedulerConfig, TrainingConfig


def build_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainingConfig, fused: bool | None = True
) -> dict[str, Any]:
    """What LightningModule.configure_optimizers returns.

    The rate rises linearly from learning_rate / div_factor over the first `pct_start` of `total_steps`, then falls
    linearly to learning_rate / final_div_factor; momentum stays. One step of the schedule per optimiser step.

    `fused` updates all parameters in one kernel, and skips the update on the device if `found_inf` says so.
    """
    optimizer = AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)
    schedule = config.lr_scheduler
    if not schedule.use:
        return {"optimizer": optimizer}
    scheduler = OneCycleLR(
        optimizer,
        max_lr=config.learning_rate,
        total_steps=schedule.total_steps,
        pct_start=_warm_up_share(schedule),
        anneal_strategy="linear",
        cycle_momentum=False,
        div_factor=schedule.div_factor,
        # PyTorch divides the initial rate by its final_div_factor; ours, like RVT's, divides the maximum.
        final_div_factor=schedule.final_div_factor / schedule.div_factor,
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"}}


def rate_at(step: int, config: TrainingConfig) -> float:
    """The learning rate of a step, from 0; after the end of the schedule that of its last step."""
    schedule = config.lr_scheduler
    if not schedule.use:
        return config.learning_rate
    first, last = config.learning_rate / schedule.div_factor, config.learning_rate / schedule.final_div_factor
    peak, end = _warm_up_share(schedule) * schedule.total_steps - 1, schedule.total_steps - 1
    step = min(step, end)
    if step <= peak:
        return first + (config.learning_rate - first) * step / peak
    return config.learning_rate + (last - config.learning_rate) * (step - peak) / (end - peak)


def _warm_up_share(schedule: LrSchedulerConfig) -> float:
    """PyTorch divides by zero if the rate rises for exactly one step: 200 steps at the default pct_start of 0.005."""
    share = schedule.pct_start
    return share * (1 + 1e-9) if share * schedule.total_steps == 1 else share
