"""Checks between fields of a configuration: settings that are each allowed, but contradict each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from config.checks.dataset import check_dataset_settings
from config.checks.machine import check_checkpoints, check_devices, check_folder, check_wandb_mode
from config.checks.network import check_model, check_network_input
from config.checks.training import (
    check_lanes,
    check_only,
    check_protocols,
    check_schedule,
    check_smallest_map,
    check_stage,
    check_start,
    check_validations,
    check_weights,
)
from config.errors import Problem
from config.freezing import check_freeze

Check = Callable[..., Iterator[Problem]]
SectionCheck = tuple[tuple[str, ...], Check]  # the sections that a check reads

# A check runs if the sections it reads are valid, so that one mistake does not hide another.
CHECKS: tuple[SectionCheck, ...] = (
    (("dataset",), lambda config: check_dataset_settings(config.dataset)),
    (("model",), lambda config: check_model(config.model)),
    (("dataset", "model"), check_network_input),
    (("training",), check_schedule),
    (("training", "validation"), check_validations),
    (("dataset", "batch_size"), check_lanes),
    (("dataset", "model", "batch_size"), check_smallest_map),
    (("resume", "weights"), check_start),
    (("weights", "weights_classes", "weights_partial", "weights_key"), check_weights),
    (("training", "resume", "weights"), check_freeze),
    (("dataset",), check_only),
    (("training", "stage"), check_stage),
    (("evaluation", "protocols"), check_protocols),
)
# What depends on the machine is checked by the entry points only.
MACHINE_CHECKS: tuple[SectionCheck, ...] = (
    (("dataset",), check_folder),
    (("checkpoint",), check_checkpoints),
    (("hardware",), check_devices),
    (("logger",), check_wandb_mode),
)
