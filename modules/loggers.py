"""Loggers that never stop a run: metrics.csv always; WandB, TensorBoard by choice."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn

from config.schema import Config
from modules.run_folder import RunFolder

WANDB_TIMEOUT_S = 15


class MetricsCsv(Logger):
    """metrics.csv: one row per logged step, one column per metric, in the order in which they first came.

    A resumed run goes on in the same file; rows of steps that it will do again are dropped.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._columns: list[str] = []

    name = "csv"
    version = ""

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The run's config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {"step": step, **metrics}
        new = [name for name in row if name not in self._columns]
        if new:
            rows = self._read()
            self._columns += new
            self._write(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    @rank_zero_only
    def forget_after(self, step: int) -> None:
        """Drop the rows of steps later than the one that a resumed run starts from."""
        if self.path.is_file():
            rows = self._read()
            self._columns = list(rows[0]) if rows else []
            self._write([row for row in rows if int(row["step"]) <= step])

    def _read(self) -> list[dict[str, str]]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="") as file:
            # a row that a kill cut short lacks its last columns
            return [row for row in csv.DictReader(file) if None not in row.values()]

    def _write(self, rows: list[dict[str, str]]) -> None:
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        temporary.replace(self.path)


class TolerantWandbLogger(WandbLogger):
    """A WandB logger whose failures are told once and change nothing else."""

    def _try(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            action(*args, **kwargs)
        except Exception as error:  # whatever WandB raises, training is worth more
            rank_zero_warn(f"WandB: {type(error).__name__}: {error}. Training goes on; metrics.csv has everything.")

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._try(super().log_metrics, metrics, step)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        self._try(super().log_image, key, images, step, **kwargs)

    @rank_zero_only
    def log_table(self, *args: Any, **kwargs: Any) -> None:
        self._try(super().log_table, *args, **kwargs)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        self._try(super().log_hyperparams, *args, **kwargs)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._try(super().finalize, status)


def build_loggers(config: Config, run: RunFolder, resolved: dict[str, Any]) -> list[Logger]:
    """Return the loggers that `logger=` names, and metrics.csv."""
    loggers: list[Logger] = [MetricsCsv(run.path)]
    if "wandb" in config.loggers:
        loggers += _wandb_logger(config, run, resolved)
    if "tensorboard" in config.loggers:
        loggers.append(TensorBoardLogger(run.path, name="tensorboard", version=""))
    return loggers


@rank_zero_only
def _start_wandb(config: Config, run: RunFolder, resolved: dict[str, Any]) -> Any:
    """Start a WandB run: online with a key and a network, else offline. Never asks a question."""
    import wandb

    logging.getLogger("wandb").setLevel(logging.ERROR)
    settings = {"silent": True, "console": "off", "init_timeout": WANDB_TIMEOUT_S, "login_timeout": WANDB_TIMEOUT_S}
    arguments = {
        "project": config.wandb.project_name,
        "group": config.wandb.group_name,
        "id": run.run_id,
        "name": run.run_id,
        "dir": str(run.path),
        "resume": "allow",
        "config": resolved,
    }
    why = "no WandB key"
    try:
        if wandb.setup().settings.mode == "online" and wandb.login(prompt=False, timeout=WANDB_TIMEOUT_S):
            return wandb.init(**arguments, settings=wandb.Settings(**settings))
    except Exception as error:  # no network, a wrong key, a full quota: none is a reason not to train
        why = f"WandB cannot be reached ({type(error).__name__}: {error})"
    print(f"{why}: logging offline. Later: wandb sync {run.path}/wandb/offline-run-*", flush=True)
    return wandb.init(**arguments, mode="offline", settings=wandb.Settings(**settings))


def _wandb_logger(config: Config, run: RunFolder, resolved: dict[str, Any]) -> list[Logger]:
    try:
        experiment = _start_wandb(config, run, resolved)
    except Exception as error:
        rank_zero_warn(f"WandB does not start ({type(error).__name__}: {error}). Training goes on without it.")
        return []
    if experiment is None:  # every process but the first
        return []
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    experiment.define_metric("val/AP", summary="max", step_metric="trainer/global_step")
    return [TolerantWandbLogger(experiment=experiment)]
