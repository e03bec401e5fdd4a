"""Loggers that never stop a run: metrics.csv always; WandB, TensorBoard by choice."""

from __future__ import annotations

import csv
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn

from config.schema import Config
from modules.run.folder import RunFolder
from modules.run.writing import goes_on_without

WANDB_TIMEOUT_S = 15
WANDB_FINISH_TIMEOUT_S = 60  # for what is not uploaded yet at the end; a lost network would hold the process for ever


class MetricsCsv(Logger):
    """metrics.csv: one row per logged step, one column per metric, in the order in which they first came.

    A resumed run goes on in the same file; rows of steps that it will do again are dropped. While the disk is full rows
    wait in memory.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._columns: list[str] = []
        self._waiting: list[dict[str, Any]] = []  # rows that the disk had no room for

    name = "csv"
    version = ""

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The run's config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._waiting.append({"step": step, **metrics})
        with goes_on_without(self.path):
            self._write_waiting()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        with goes_on_without(self.path):
            self._write_waiting()

    @rank_zero_only
    def forget_from(self, step: int) -> None:
        """Drop the rows of steps that a resumed run will do again: it has done `step` steps, 0 to step - 1."""
        with goes_on_without(self.path):
            if self.path.is_file():
                rows = self._read()
                self._columns = list(rows[0]) if rows else []
                self._write([row for row in rows if int(row["step"]) < step])

    def _write_waiting(self) -> None:
        new = {name: None for row in self._waiting for name in row if name not in self._columns}
        if new or not self.path.is_file():
            rows, columns = self._read(), self._columns
            self._columns = [*columns, *new]
            try:
                self._write(rows)
            except OSError:
                self._columns = columns
                raise
        size = self.path.stat().st_size
        try:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerows(self._waiting)
        except OSError:
            os.truncate(self.path, size)  # half a row would spoil the next one
            raise
        self._waiting.clear()

    def _read(self) -> list[dict[str, str]]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="", errors="replace") as file:
            # a row that a crash of the machine cut short lacks its last columns; a damaged disk can leave anything
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
            return [row for row in rows if None not in row and row.get("step", "").isdigit()]

    def _write(self, rows: list[dict[str, str]]) -> None:
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        temporary.replace(self.path)


class _Tolerant:
    """A logger whose failures are told once and change nothing else; what fails is the other base class'."""

    more_to_come = False  # another stage: what has ended well is no end of the run

    def _try(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        with goes_on_without(type(self).__name__.removeprefix("Tolerant"), "metrics.csv has everything"):
            action(*args, **kwargs)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._try(super().log_metrics, metrics, step)  # type: ignore[missing-attribute]

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        self._try(super().log_hyperparams, *args, **kwargs)  # type: ignore[missing-attribute]

    @rank_zero_only
    def save(self) -> None:
        self._try(super().save)  # type: ignore[missing-attribute]

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if not (self.more_to_come and status == "success"):
            self._try(super().finalize, status)  # type: ignore[missing-attribute]


class TolerantTensorBoardLogger(_Tolerant, TensorBoardLogger):
    """TensorBoard's event files, if the disk takes them."""


class TolerantWandbLogger(_Tolerant, WandbLogger):
    """A WandB run, if there is a way to it."""

    @rank_zero_only
    @goes_on_without("Wandb", "metrics.csv has everything")
    def finalize(self, status: str) -> None:
        import wandb

        if self.more_to_come and status == "success":
            return
        super().finalize(status)
        files = Path(self.experiment.dir).parent
        started = time.monotonic()
        self._try(wandb.teardown, 0 if status == "success" else 1)  # else it fails at exit, with a traceback
        if time.monotonic() - started >= WANDB_FINISH_TIMEOUT_S:
            print(f"WandB took not everything within {WANDB_FINISH_TIMEOUT_S} s. Later: wandb sync {files}", flush=True)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        self._try(super().log_image, key, images, step, **kwargs)

    @rank_zero_only
    def log_table(self, *args: Any, **kwargs: Any) -> None:
        self._try(super().log_table, *args, **kwargs)


def expect_more(loggers: Iterable[Logger], more_to_come: bool) -> None:
    for logger in loggers:
        if isinstance(logger, _Tolerant):
            logger.more_to_come = more_to_come


def build_loggers(config: Config, run: RunFolder) -> list[Logger]:
    """Return the loggers that `logger=` names, and metrics.csv."""
    loggers: list[Logger] = [MetricsCsv(run.path)]
    if "wandb" in config.loggers:
        loggers += _wandb_logger(config, run)
    if "tensorboard" in config.loggers:
        loggers.append(TolerantTensorBoardLogger(run.path, name="tensorboard", version=""))
    return loggers


@rank_zero_only
def _start_wandb(config: Config, run: RunFolder) -> Any:
    """Start a WandB run: online with a key and a network, else offline. Never asks a question.

    WandB's variables hold where nothing else is said: it reads WANDB_ENTITY, WANDB_TAGS, WANDB_RUN_GROUP and others
    itself; WANDB_PROJECT is the default of wandb.project_name.
    """
    import wandb

    logging.getLogger("wandb").setLevel(logging.ERROR)
    settings: dict[str, Any] = {
        "silent": True,
        "console": "off",
        "init_timeout": WANDB_TIMEOUT_S,
        "login_timeout": WANDB_TIMEOUT_S,
        "finish_timeout": WANDB_FINISH_TIMEOUT_S,
    }
    folder = Path(os.environ.get("WANDB_DIR") or run.path)
    folder.mkdir(parents=True, exist_ok=True)
    arguments: dict[str, Any] = {
        "project": config.wandb.project_name,
        "group": config.wandb.group_name,
        "id": run.run_id,
        "name": os.environ.get("WANDB_NAME") or config.experiment.name or run.run_id,
        "dir": str(folder),
        "resume": "allow",
        "config": config.model_dump(mode="json"),
    }
    notes = yaml.safe_dump(config.notes, sort_keys=False, allow_unicode=True) if config.notes else None
    if told := [text for text in (os.environ.get("WANDB_NOTES"), config.experiment.hypothesis, notes) if text]:
        arguments["notes"] = "\n".join(told)
    later = f"Later: wandb sync {folder}/wandb/offline-run-*-{run.run_id}"
    if _wandb_mode() == "offline":
        print(f"WandB logs offline. {later}", flush=True)
        return wandb.init(**arguments, mode="offline", settings=wandb.Settings(**settings))
    why = "no WandB key"
    try:
        if wandb.login(prompt=False, timeout=WANDB_TIMEOUT_S):
            return wandb.init(**arguments, settings=wandb.Settings(**settings))
    except Exception as error:  # no network, a wrong key, a full quota: none is a reason not to train
        why = f"WandB cannot be reached ({type(error).__name__}: {error})"
    print(f"{why}: logging offline. {later}", flush=True)
    return wandb.init(**arguments, mode="offline", settings=wandb.Settings(**settings))


def _wandb_mode() -> str:
    """Of the environment, or what `wandb offline` has put into a settings file."""
    import wandb

    mode = os.environ.get("WANDB_MODE") or wandb.setup().settings.mode
    return {"dryrun": "offline", "run": "online"}.get(mode, mode)


@rank_zero_only
def _tell_of_environment(config: Config) -> None:
    """Say which of WandB's variables are set; its key is nobody's to read."""
    told = ("MODE", "PROJECT", "ENTITY", "DIR", "TAGS", "NAME", "NOTES", "RUN_GROUP", "JOB_TYPE", "BASE_URL")
    found = [f"WANDB_{name}={value}" for name in told if (value := os.environ.get(f"WANDB_{name}"))]
    if found:
        print(f"WandB: project {config.wandb.project_name}; in the environment: {' '.join(found)}", flush=True)
    if os.environ.get("WANDB_RUN_ID"):
        print("WandB: WANDB_RUN_ID is not used, the run's folder has the id", flush=True)


def _wandb_logger(config: Config, run: RunFolder) -> list[Logger]:
    _tell_of_environment(config)
    if _wandb_mode() == "disabled":
        return []
    try:
        experiment = _start_wandb(config, run)
        if experiment is not None:
            experiment.define_metric("trainer/global_step")
            experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
            experiment.define_metric("val/AP", summary="max", step_metric="trainer/global_step")
    except Exception as error:
        rank_zero_warn(f"WandB does not start ({type(error).__name__}: {error}). Training goes on without it.")
        return []
    if experiment is None:  # every process but the first
        return []
    return [TolerantWandbLogger(experiment=experiment)]
