"""Reports of parts of a check, made by several processes, and their sum."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from config.errors import UserError
from config.schema import DatasetConfig
from data.checks.dataset import DatasetReport, SplitSummary, joined
from data.checks.sequence import Fault


@dataclass(frozen=True)
class Checked:
    """A report, and of which frames it is."""

    report: DatasetReport
    num_frames: int = 0  # read one by one (full=true), in `num_sound` of `num_folders` sequences
    num_sound: int = 0
    num_folders: int = 0


def identity(dataset: DatasetConfig, *, full: bool) -> str:
    """Tells the parts of one check from those of another."""
    settings = json.dumps([str(dataset.path.resolve()), dataset.model_dump(mode="json", exclude={"path"}), full])
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def part_path(folder: Path, number: int, count: int) -> Path:
    return folder / f"part_{number}_of_{count}.json"


def write_part(path: Path, checked: Checked, of: str) -> None:
    """Appears at once and complete."""
    splits = [
        {**asdict(split), "boxes": split.boxes.tolist(), "label_intervals_us": list(split.label_intervals_us.items())}
        for split in checked.report.splits
    ]
    faults = [{**asdict(fault), "path": str(fault.path)} for fault in checked.report.faults]
    counts = {key: value for key, value in vars(checked).items() if key != "report"}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"of": of, "splits": splits, "faults": faults, **counts}))
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}. Give another folder: reports=FOLDER") from error


def read_part(path: Path, of: str) -> Checked:
    """Raises UserError for a part of another check and for a damaged one."""
    try:
        content = json.loads(path.read_text())
        splits = [_split_of(split) for split in content.pop("splits")]
        faults = [Fault(Path(fault.pop("path")), **fault) for fault in content.pop("faults")]
        told = content.pop("of")
        checked = Checked(DatasetReport(splits, faults), **content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is no report of a part ({error}). Remove it and check that part again") from error
    if told != of:
        raise UserError(f"{path} is of another check: of another path, other settings or another full=. Remove it")
    return checked


def _split_of(told: dict[str, Any]) -> SplitSummary:
    intervals = Counter(dict(told.pop("label_intervals_us")))
    return SplitSummary(boxes=np.array(told.pop("boxes"), np.int64), label_intervals_us=intervals, **told)


def missing_parts(folder: Path, count: int) -> list[int]:
    return [number for number in range(1, count + 1) if not part_path(folder, number, count).is_file()]


def sum_of_parts(folder: Path, count: int, dataset: DatasetConfig, *, full: bool) -> tuple[Checked, str]:
    """The sum of all parts, and when the first and the last of them were written."""
    paths = [part_path(folder, number, count) for number in range(1, count + 1)]
    parts = [read_part(path, identity(dataset, full=full)) for path in paths]
    times = sorted(datetime.fromtimestamp(path.stat().st_mtime) for path in paths)
    counts = (sum(getattr(part, name) for part in parts) for name in ("num_frames", "num_sound", "num_folders"))
    told = f"{times[0]:%Y-%m-%d %H:%M:%S} .. {times[-1]:%Y-%m-%d %H:%M:%S}"
    return Checked(joined([part.report for part in parts], dataset), *counts), told


def counts_of_parts(folder: Path) -> Sequence[int]:
    """Into how many parts the checks were divided whose reports lie there."""
    return sorted({int(path.stem.rpartition("_")[2]) for path in folder.glob("part_*_of_*.json")})
