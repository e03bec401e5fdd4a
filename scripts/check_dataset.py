"""Check a preprocessed data set: a table of what it holds, and every fault with file, place and remedy.

python scripts/check_dataset.py dataset=gen4 dataset.path=/data/etram
python scripts/check_dataset.py dataset=gen4 dataset.path=/data/etram full=true workers=8
python scripts/check_dataset.py dataset=gen4 dataset.path=/data/etram full=true shard=3/16 reports=FOLDER
python scripts/check_dataset.py dataset=gen4 dataset.path=/data/etram full=true shards=16 launcher=submitit

All labels are read, and a sample of the frames; full=true reads every frame of every file. Exit code 0, or 1 if
training on it would suffer. shard= is one of several jobs, launcher= starts all of them. Parts count from 1
(SLURM: --array=1-16, shard=$SLURM_ARRAY_TASK_ID/16); the last one to finish also prints the sum, as does reports=FOLDER
without shard=.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from config.errors import UserError
from config.loading import load_dataset_config
from config.schema import DatasetConfig
from config.search_path import add_config_dir
from data.checks.dataset import SAMPLED, DatasetReport, Part, check_dataset
from data.checks.frames import check_all_frames
from data.checks.parts import (
    Checked,
    counts_of_parts,
    identity,
    missing_parts,
    part_path,
    sum_of_parts,
    write_part,
)
from data.checks.sequence import Fault
from data.layout import SPLITS, sequence_folders
from scripts.parallel import run_parallel, split_key, split_workers
from scripts.shards import Launch, Shard, split_shard

_MAX_FAULTS_SHOWN = 50


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "overrides",
        nargs="+",
        metavar="key=value",
        help="dataset=NAME, dataset.path=PATH, full=true, workers=N (1), shard=K/N, reports=FOLDER, ...",
    )
    add_config_dir(parser)
    console = Console()
    try:
        launch, arguments = Launch.split(sys.argv[1:] if arguments is None else arguments)
        options = parser.parse_intermixed_args(arguments)
        workers, overrides = split_workers(options.overrides)
        full, overrides = _split_full(overrides)
        shard, overrides = split_shard(overrides)
        folder, overrides = split_key("reports", "", overrides)
        dataset = load_dataset_config([*options.config_dirs, *overrides])
        if not dataset.path.is_dir():
            raise UserError(f"{dataset.path} not found. Check dataset.path")
        if launch:
            folder = folder or str(launch.folder / f"reports_{datetime.now():%Y%m%d-%H%M%S}")
            launch.run("check_dataset", [*arguments, f"reports={folder}"])
        if shard and not folder:
            raise UserError(f"shard={shard}: give reports=FOLDER, too, where the parts lie until they are summed up")
        if folder and not shard:
            return _tell_sum(Path(folder), launch.shards if launch else None, dataset, full, console)
        checked = _check(dataset, full, shard.part if shard else None, workers, console)
        _tell(checked, dataset, full, console)
        if shard:
            return _leave_part(Path(folder), shard, checked, dataset, full, console)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 1 if checked.report.blocking else 0


def _check(dataset: DatasetConfig, full: bool, part: Part | None, workers: int, console: Console) -> Checked:
    report = check_dataset(dataset, thorough=True, part=part)
    if not full:
        return Checked(report)
    spoiled = {fault.path for fault in report.blocking if not fault.skippable}
    of_splits = [sequence_folders(dataset.path / split) for split in SPLITS]
    folders = [split[i] for split in of_splits for i in (part(range(len(split))) if part else range(len(split)))]
    sound = [folder for folder in folders if not any(folder in (path, *path.parents) for path in spoiled)]
    faults, num_frames = read_every_frame(dataset, sound, workers, console)
    known = {fault.path for fault in faults}  # told with all their places
    faults = [*(fault for fault in report.faults if fault.path not in known), *faults]
    return Checked(replace(report, faults=faults), num_frames, len(sound), len(folders))


def _tell(checked: Checked, dataset: DatasetConfig, full: bool, console: Console) -> None:
    print_report(checked.report, dataset, console)
    how = f"{SAMPLED}; full=true reads every one"
    if full:
        how = f"every one of {checked.num_frames:,} was read, in {checked.num_sound} of {checked.num_folders} sequences"
        how += "" if checked.num_sound == checked.num_folders else "; the others have the faults above"
    console.print(f"Labels: all were read. Frames: {how}", soft_wrap=True)


def _leave_part(
    folder: Path, shard: Shard, checked: Checked, dataset: DatasetConfig, full: bool, console: Console
) -> int:
    """Leave the report of a part, and tell the sum if it was the last one."""
    path = part_path(folder, shard.number, shard.count)
    write_part(path, checked, identity(dataset, full=full))
    if missing := missing_parts(folder, shard.count):
        console.print(f"{path} written; missing: parts {', '.join(map(str, missing))}", soft_wrap=True)
        return 1 if checked.report.blocking else 0
    return _tell_sum(folder, shard.count, dataset, full, console)


def _tell_sum(folder: Path, count: int | None, dataset: DatasetConfig, full: bool, console: Console) -> int:
    counts = [count] if count else counts_of_parts(folder)
    if len(counts) != 1:
        raise UserError(
            f"{folder} has reports of {len(counts)} divisions into parts: check with shard=1/N ... N/N there"
        )
    if missing := missing_parts(folder, counts[0]):
        raise UserError(f"{folder} lacks the reports of parts {', '.join(map(str, missing))} of {counts[0]}")
    checked, written = sum_of_parts(folder, counts[0], dataset, full=full)
    console.print(f"\nSum of {counts[0]} parts, written {written}:", soft_wrap=True)
    _tell(checked, dataset, full, console)
    return 1 if checked.report.blocking else 0


def _split_full(overrides: Sequence[str]) -> tuple[bool, list[str]]:
    value, others = split_key("full", "false", overrides)
    if value.lower() not in ("true", "false"):
        raise UserError(f"full={value}: true or false")
    return value.lower() == "true", others


def read_every_frame(
    dataset: DatasetConfig, folders: Sequence[Path], workers: int, console: Console
) -> tuple[list[Fault], int]:
    """Faults of all frames of these sequences, and how many frames were read."""
    if not folders:
        return [], 0
    outcomes = run_parallel(partial(check_all_frames, dataset), folders, workers, console, what="sequences")
    faults, num_frames = [], 0
    for folder, outcome in zip(folders, outcomes, strict=True):
        if isinstance(outcome, UserError):
            faults.append(Fault(folder, str(outcome).removeprefix(f"{folder}: "), ""))
        else:
            faults += outcome.faults
            num_frames += outcome.num_read
    return faults, num_frames


def print_report(report: DatasetReport, dataset: DatasetConfig, console: Console) -> None:
    console.print(_splits_table(report), _boxes_table(report, dataset))
    faults = sorted(report.faults, key=lambda fault: (not fault.blocks_training, str(fault.path)))
    for fault in faults[:_MAX_FAULTS_SHOWN]:
        console.print(f"{'FAULT' if fault.blocks_training else 'note '} {fault}", markup=False, soft_wrap=True)
    if len(faults) > _MAX_FAULTS_SHOWN:
        console.print(f"... and {len(faults) - _MAX_FAULTS_SHOWN} more")
    console.print(f"{len(report.blocking)} faults, {len(faults) - len(report.blocking)} notes: {dataset.path}")


def _splits_table(report: DatasetReport) -> Table:
    table = Table(
        title="Splits", caption="(counts: sums of sampled frames as loaded, whose cells stop at count_cutoff)"
    )
    columns = ("split", "sequences", "frames", "labelled", "label interval", "longest gap", "counts per frame")
    for column in columns:
        table.add_column(column, justify="left" if column == "split" else "right")
    for split in report.splits:
        table.add_row(
            split.split,
            f"{split.num_sequences}",
            f"{split.num_frames}",
            f"{split.num_labelled_frames}",
            f"{split.label_interval_ms:.0f} ms",
            f"{split.longest_label_gap_ms / 1000:.1f} s",
            f"{split.counts_per_frame:.0f}",
        )
    return table


def _boxes_table(report: DatasetReport, dataset: DatasetConfig) -> Table:
    table = Table(title="Boxes as loaded", caption="(small / medium / large: below 32², below 96², above, in pixels)")
    table.add_column("class")
    for split in report.splits:
        table.add_column(split.split, justify="right")
    for class_id, name in enumerate(dataset.classes):
        counts = [split.boxes[class_id] for split in report.splits]
        table.add_row(name, *(f"{count.sum()} ({'/'.join(map(str, count))})" for count in counts))
    return table


if __name__ == "__main__":
    sys.exit(main())
