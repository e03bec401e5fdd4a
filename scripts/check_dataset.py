"""Check a preprocessed data set: a table of what it holds, and every fault with file, place and remedy.

python scripts/check_dataset.py dataset=gen4 dataset.path=/data/etram

Exit code 0, or 1 if training on it would suffer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from config.errors import UserError
from config.loading import load_dataset_config
from config.schema import DatasetConfig
from config.search_path import add_config_dir
from data.checks.dataset import DatasetReport, check_dataset

_MAX_FAULTS_SHOWN = 50


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="+", metavar="key=value", help="dataset=NAME, dataset.path=PATH, ...")
    add_config_dir(parser)
    options = parser.parse_intermixed_args(arguments)
    try:
        dataset = load_dataset_config([*options.config_dirs, *options.overrides])
        if not dataset.path.is_dir():
            raise UserError(f"{dataset.path} not found. Check dataset.path")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report = check_dataset(dataset, thorough=True)
    print_report(report, dataset, Console())
    return 1 if report.blocking else 0


def print_report(report: DatasetReport, dataset: DatasetConfig, console: Console) -> None:
    console.print(_splits_table(report), _boxes_table(report, dataset))
    faults = sorted(report.faults, key=lambda fault: not fault.blocks_training)
    for fault in faults[:_MAX_FAULTS_SHOWN]:
        console.print(f"{'FAULT' if fault.blocks_training else 'note '} {fault}", markup=False, soft_wrap=True)
    if len(faults) > _MAX_FAULTS_SHOWN:
        console.print(f"... and {len(faults) - _MAX_FAULTS_SHOWN} more")
    console.print(f"{len(report.blocking)} faults, {len(faults) - len(report.blocking)} notes: {dataset.path}")


def _splits_table(report: DatasetReport) -> Table:
    table = Table(title="Splits")
    columns = ("split", "sequences", "frames", "labelled", "label interval", "longest gap", "events per frame")
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
            f"{split.events_per_frame:.0f}",
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
