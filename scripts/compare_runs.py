"""A table of runs: experiment, AP, AP per class, steps, time, parameters; and what differs between their configs.

    python scripts/compare_runs.py [FOLDER ...] [--group NAME] [--sort COLUMN] [--reverse] [--format text|markdown|csv]
                                   [--baseline CONFIG_OR_RUN] [--split val|test]

FOLDER is a run's folder or one that holds runs; without any, runs/. AP columns are of the best validation in training;
`val AP` and `test AP` are of the newest validation.py of the run. Where frames differ in size, AP by sizes of boxes on
the sensor (AP_S_sensor) comes first, that in pixels of the frame last, with a note.

A group is a sweep (docs/sweeps.md), or what
wandb.group_name names. CSV gives the differing keys as further columns.

Runs that differ in their seed alone are one config: mean, spread, number. Configs are compared from the predictions
that validation.py stored: difference, 95 % interval (over sequences, and over seeds where there are several), p-value.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from config.command_line import errors_without_traceback
from config.errors import UserError
from modules.reports.resolutions import about_sizes
from modules.reports.run_table import RunRow, difference_table, find_runs, read_runs, run_table
from modules.reports.significance import difference_rows, group_runs, group_table
from modules.reports.tables import TableFormat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", default=[Path("runs")], metavar="FOLDER")
    parser.add_argument("--group", metavar="NAME", help="only the runs of this group")
    parser.add_argument("--sort", default="AP", metavar="COLUMN", help="numbers from large to small, text from A to Z")
    parser.add_argument("--reverse", action="store_true")
    parser.add_argument("--format", choices=["text", "markdown", "csv"], default="text")
    parser.add_argument("--baseline", metavar="CONFIG_OR_RUN", help="compare with this one; all pairs without it")
    parser.add_argument("--split", choices=["val", "test"], default="val", help="whose stored predictions are compared")
    arguments = parser.parse_args()
    with errors_without_traceback():
        runs, faults = read_runs(find_runs(arguments.folders))
        if arguments.group is not None:
            runs = of_group(runs, arguments.group)
        print(compare(runs, arguments.sort, arguments.reverse, arguments.format), end="", flush=True)
        if arguments.format != "csv" and len(runs) > 1:
            told = differences(runs, arguments.baseline, arguments.split, arguments.format)
            print(told, end="", flush=True)
        if faults:
            raise UserError("\n  ".join(["left out of the table:", *faults]))


def of_group(runs: list[RunRow], name: str) -> list[RunRow]:
    """Raises UserError where there are none."""
    groups = {str(run.cells.get("group")) for run in runs if run.cells.get("group") is not None}
    if name not in groups:
        raise UserError(f"--group {name}: no run of it. There are: {', '.join(sorted(groups)) or 'none'}")
    return [run for run in runs if run.cells.get("group") == name]


def compare(runs: list[RunRow], sort: str, reverse: bool, style: TableFormat) -> str:
    """The comparison as text; in CSV one table with the differing keys as columns."""
    differences = difference_table([run for run in runs if run.config])  # what cannot be read has none
    if style == "csv":
        keys = {str(row[0]): dict(zip(differences.header[1:], row[1:], strict=True)) for row in differences.rows}
        runs = [
            replace(run, cells={**run.cells, **{key: values.get(run.name) for key, values in keys.items()}})
            for run in runs
        ]
        return run_table(runs, sort, reverse).format("csv")
    tables = [run_table(runs, sort, reverse), *([differences] if differences.rows else [])]
    first, *others = (table.format(style) for table in tables)
    note = about_sizes([run.cells for run in runs], [run.config for run in runs if run.config])
    return "\n".join([first, *([f"{note}\n"] if note else []), *others])


def differences(runs: list[RunRow], baseline: str | None, split: str, style: TableFormat) -> str:
    """Configs as rows, and what tells them apart."""
    groups, notes = group_runs(runs, split)
    lines = [*notes, *(difference_rows(groups, baseline) if len(groups) > 1 or baseline else [])]
    bullet = "- " if style == "markdown" else "  "
    return "\n".join(["", group_table(groups).format(style), *(f"{bullet}{line}" for line in lines), ""])


if __name__ == "__main__":
    main()
