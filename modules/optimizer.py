"""AdamW under a one-cycle learning rate, with the reference's meaning of `final_div_factor`."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW, Optimizer

from config.schema import LrSchedulerConfig, TrainingConfig


def build_optimizer(parameters: Iterable[nn.Parameter], config: TrainingConfig, fused: bool | None = True) -> AdamW:
    """`fused` updates all parameters in one kernel, and skips the update on the device if `found_inf` says so."""
    return AdamW(parameters, lr=rate_at(0, config), weight_decay=config.weight_decay, fused=fused)


def apply_settings(optimizer: Optimizer, config: TrainingConfig) -> None:
    """Give a resumed optimizer, whose moments and settings come from a checkpoint, the settings of the config."""
    fresh = build_optimizer([nn.Parameter()], config).param_groups[0]
    for group in optimizer.param_groups:
        group.update({name: value for name, value in fresh.items() if name not in ("params", "lr")})


def set_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def rate_at(step: int, config: TrainingConfig) -> float:
    """The learning rate of a step, from 0; after the end of the schedule that of its last step.

    It rises linearly from learning_rate / div_factor over the first `pct_start` of `total_steps`, then falls linearly
    to learning_rate / final_div_factor: OneCycleLR of PyTorch, to the last digit, but with RVT's final_div_factor,
    which divides the maximum and not the initial rate.
    """
    schedule = config.lr_scheduler
    if not schedule.use:
        return config.learning_rate
    peak_rate = config.learning_rate
    first_rate = peak_rate / schedule.div_factor
    last_rate = first_rate / (schedule.final_div_factor / schedule.div_factor)
    peak, end = _warm_up_share(schedule) * schedule.total_steps - 1, schedule.total_steps - 1
    step = min(step, end)
    if step <= peak:
        return (peak_rate - first_rate) * (step / peak) + first_rate
    return (last_rate - peak_rate) * ((step - peak) / (end - peak)) + peak_rate


def _warm_up_share(schedule: LrSchedulerConfig) -> float:
    """A rate that rises for exactly one step (200 steps at the default pct_start of 0.005) would divide by zero."""
    share = schedule.pct_start
    return share * (1 + 1e-9) if share * schedule.total_steps == 1 else share
