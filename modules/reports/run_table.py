"""Runs side by side: what each was, what came out, and where their configs differ."""

from __future__ import annotations

import csv
import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, FiniteFloat, ValidationError

from config.errors import UserError
from config.yaml_files import read_yaml
from modules.reports.resolutions import AS_LOADED, FRAMES, ON_THE_SENSOR, frames_of, ordered
from modules.reports.stages import StoredStage, number_of_stages, stage_of_step
from modules.reports.tables import Cell, Table, measured
from modules.run.folder import step_of

Results = TypeVar("Results", bound=BaseModel)
METRICS = ("AP", "AP_50", "AP_75", *ON_THE_SENSOR, *AS_LOADED)


@dataclass(frozen=True)
class RunRow:
    """A run's folder as read; whatever a run that broke off has not written is missing, not an error."""

    name: str
    cells: dict[str, Cell]
    config: dict[str, Any]  # flat: dataset.path, training.learning_rate, ...
    folder: Path | None = None


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """Run folders (config.yaml beside checkpoints/) at or below the given folders, in order of path."""
    found: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder. Give run folders, or a folder of runs such as runs/RVT")
        for parent, subfolders, files in os.walk(folder):
            if "config.yaml" in files and "checkpoints" in subfolders:
                found.add(Path(parent).resolve())
                subfolders.clear()
    if not found:
        raise UserError(
            f"no run below {', '.join(map(str, folders))}: a run's folder holds config.yaml and checkpoints/"
        )
    return sorted(found)


def read_runs(folders: Sequence[Path]) -> tuple[list[RunRow], list[str]]:
    """Rows of runs, and a line for each that cannot be read: it keeps its row, and hides no other."""
    rows, faults = [], []
    for folder in folders:
        try:
            rows.append(read_run(folder))
        except UserError as error:
            name = f"{folder.parent.name}/{folder.name}"
            rows.append(RunRow(name, {"run": name, "status": "cannot be read"}, {}))
            faults.append(str(error))
    return rows, faults


def read_run(folder: Path) -> RunRow:
    """Read config.yaml, command.txt, results.json, metrics.csv and the results.json of its validations.

    Of results.json these keys are read, each only if it is there: `best` and `last` (`step` and the metrics of a
    validation with `AP/<class>`), `steps`, `status`, `duration_s`, `steps_per_s`, `peak_memory_mb`, `parameters`,
    `stages`. Of a run with stages, `stage` and frames are those of its figures: the last one's, if it got there.
    """
    config = _flatten(read_yaml(folder / "config.yaml"))
    results = _read_json(folder / "results.json", _RunResults)
    best = results.best or results.last or {}
    count, stage = number_of_stages(config), int(best.get("stage") or 0)
    frames = frames_of(_of_stage(config, stage) if 1 <= stage <= count else config)
    cells: dict[str, Cell] = {
        "run": f"{folder.parent.name}/{folder.name}",
        "group": config.get("wandb.group_name"),
        "experiment": _experiment(folder / "command.txt", config),
        "hypothesis": config.get("experiment.hypothesis"),
        FRAMES: frames,
        "stage": f"{stage} of {count}" if stage and count else None,
        "status": (results.status or "no results").partition("\n")[0],
        **{name: measured(best.get(name)) for name in METRICS},
        "best step": None if best.get("step") is None else int(best["step"]),
        **_validated(folder, frames, results.stages or [], stage),
        "steps": results.steps or _last_step(folder / "metrics.csv"),
        "hours": None if results.duration_s is None else results.duration_s / 3600,
        "steps/s": results.steps_per_s,
        "M parameters": None if results.parameters is None else results.parameters / 1e6,
        "GB memory": None if results.peak_memory_mb is None else results.peak_memory_mb / 1024,
    }
    classes = {name.removeprefix("AP/"): value for name, value in best.items() if name.startswith("AP/")}
    cells |= {f"AP {name}": measured(value) for name, value in classes.items()}
    return RunRow(str(cells["run"]), cells, config, folder)


def stages_of(folder: Path) -> list[StoredStage]:
    """Those that have ended of a run with stages; none of another, nor of what is no run's folder."""
    return _read_json(folder / "results.json", _RunResults).stages or [] if (folder / "config.yaml").is_file() else []


def run_table(runs: Sequence[RunRow], sort: str = "AP", reverse: bool = False) -> Table:
    """One row a run. Numbers are sorted from large to small, text from A to Z, what is missing comes last."""
    header = list(dict.fromkeys(name for run in runs for name in run.cells))
    named = {name.lower(): name for name in header}
    if sort == "AP" and "AP" not in header:  # no run can be read
        sort = "run"
    if sort.lower() not in named:
        raise UserError(f"--sort {sort}: no such column. There are: {', '.join(header)}")
    column = named[sort.lower()]
    present = [run for run in runs if run.cells.get(column) is not None]
    missing = [run for run in runs if run.cells.get(column) is None]
    numbers = all(isinstance(run.cells[column], int | float) for run in present)
    key: Callable[[RunRow], Any] = lambda run: run.cells[column]  # noqa: E731 (all numbers, or all text)
    present.sort(key=key, reverse=numbers != reverse)
    # A column that no run has anything for is noise.
    header = [name for name in header if any(run.cells.get(name) is not None for run in runs)]
    header = ordered(header, [run.cells for run in runs])
    return Table("Runs", header, [[run.cells.get(name) for name in header] for run in (*present, *missing)])


def difference_table(runs: Sequence[RunRow]) -> Table:
    """Keys whose value is not the same in all runs, one column a run."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    rows = []
    for key in keys:
        values = [_text(run.config[key]) if key in run.config else None for run in runs]
        if len(set(values)) > 1:
            rows.append([key, *values])
    return Table("What differs between their configs", ["key", *(run.name for run in runs)], rows)


def _text(value: Any) -> str:
    return "null" if value is None else json.dumps(value) if isinstance(value, list | bool) else str(value)


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= _flatten(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return flat


def _of_stage(config: dict[str, Any], number: int) -> dict[str, Any]:
    own = config["training.stages"][number - 1]
    return {**config, **(_flatten(own) if isinstance(own, dict) else {})}


class _RunResults(BaseModel):
    """What is read of a run's results.json, which may come from somebody else."""

    status: str | None = None
    best: dict[str, FiniteFloat | None] | None = None
    last: dict[str, FiniteFloat | None] | None = None
    steps: int | None = None
    duration_s: FiniteFloat | None = None
    steps_per_s: FiniteFloat | None = None
    parameters: int | None = None
    peak_memory_mb: FiniteFloat | None = None
    stages: list[StoredStage] | None = None


class _Protocol(BaseModel):
    split: str | None = None
    only: list[str] = []
    resolution_hw: tuple[int, int] | None = None


class _ValidationResults(BaseModel):
    """What is read of a validation's results.json."""

    checkpoint: str | None = None
    metrics: dict[str, float | None] = {}
    protocol: _Protocol = _Protocol()


def _read_json(path: Path, kind: type[Results]) -> Results:
    try:
        return kind.model_validate_json(path.read_bytes()) if path.is_file() else kind()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path} is not what a run or a validation writes: {where}: {first['msg']}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error


def _experiment(path: Path, config: dict[str, Any]) -> str:
    """What the command named: `+experiment/gen4=base` is gen4/base; otherwise the model and data set."""
    try:
        words = shlex.split(path.read_text(errors="replace")) if path.is_file() else []
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if config.get("experiment.name"):
        return str(config["experiment.name"])
    for word in reversed(words):
        key, _, value = word.lstrip("+").partition("=")
        if key.startswith("experiment/"):
            return f"{key.removeprefix('experiment/')}/{value.removesuffix('.yaml')}"
    chosen = [word.partition("=")[2] for word in words if word.lstrip("+").startswith(("model=", "dataset="))]
    return " ".join(chosen) or str(config.get("dataset.name", "-"))


def _validated(folder: Path, frames: str | None, stages: Sequence[StoredStage], stage: int) -> dict[str, Cell]:
    """AP of the newest validation.py of a run on each split, and its frames and stage where they are not the run's."""
    files = sorted(folder.glob("*/results.json"), key=lambda path: path.stat().st_mtime)
    cells: dict[str, Cell] = {}
    for split in ("val", "test"):
        cells |= {f"{split} AP": None, f"{split} frames": None, f"{split} stage": None}
        for results in (_read_json(file, _ValidationResults) for file in reversed(files)):
            if results.protocol.split == split and not results.protocol.only:
                own = results.protocol.resolution_hw
                told = None if own is None else f"{own[0]} x {own[1]}"
                cells |= {f"{split} AP": measured(results.metrics.get("AP"))}
                cells |= {f"{split} frames": None if told == frames else told}
                number = stage_of_step(stages, step_of(Path(results.checkpoint or "")))
                cells |= {f"{split} stage": str(number) if stages and results.checkpoint and number != stage else None}
                break
    return cells


def _last_step(path: Path) -> int | None:
    """How far a run came that has no results.json."""
    if not path.is_file():
        return None
    try:
        with path.open(newline="", errors="replace") as file:
            steps = [row["step"] for row in csv.DictReader(file) if row.get("step")]
    except (OSError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return int(steps[-1]) if steps and steps[-1].isdecimal() else None
