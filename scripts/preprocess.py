"""Turn raw recordings and their boxes into sequences for training.

python scripts/preprocess.py IN OUT dataset=gen4 workers=8
python scripts/preprocess.py IN OUT dataset=gen4 dataset.downsample_by_factor_2=false   # full beside half resolution
python scripts/preprocess.py IN OUT dataset=gen1 reference_gen1_spacing=true            # windows as in RVT's own files

IN holds {train,val,test}/<name>_td.h5 (or another format of docs/formats.md) and <name>_bbox.npy beside each. Finished
sequences are left alone, so a run that was stopped goes on where it was. A faulty recording is told at the end and
stops no other.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from config.errors import UserError
from config.loading import load_dataset_config
from config.schema import DatasetConfig
from config.search_path import add_config_dir
from data.layout import SPLITS
from data.recordings.event_files import LOOSE_SUFFIXES, SUFFIXES
from data.recordings.preprocessing import PARTIAL_FOLDER, RecordingFiles, Report, preprocess_recording
from scripts.parallel import run_parallel, split_workers

_ALIASES = {"reference_gen1_spacing": "dataset.preprocessing.reference_gen1_spacing"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="IN")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument(
        "overrides", nargs="+", metavar="key=value", help="dataset=NAME, workers=N (1), any dataset key"
    )
    add_config_dir(parser)
    options = parser.parse_intermixed_args(arguments)
    console = Console()
    try:
        workers, overrides = split_workers([*options.config_dirs, *options.overrides])
        dataset = load_dataset_config([_full_key(override) for override in overrides])
        recordings = find_recordings(options.source)
        preprocess = partial(preprocess_recording, options.out, dataset)
        outcomes = run_parallel(preprocess, recordings, workers, console)
        _remove_empty(options.out / PARTIAL_FOLDER)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return 130
    return _summarise(outcomes, dataset, options.out, console)


def _full_key(override: str) -> str:
    key, _, value = override.partition("=")
    return f"{_ALIASES.get(key, key)}={value}"


def find_recordings(source: Path) -> list[RecordingFiles]:
    """Recordings of all splits by name. Raises UserError where there is none, or a name occurs twice in a split."""
    found: dict[tuple[str, str], RecordingFiles] = {}
    for split in SPLITS:
        for path in sorted((source / split).glob("*")):
            if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
                continue
            name = path.name.split(".")[0].removesuffix("_td")
            files = RecordingFiles(split, name, path, path.with_name(f"{name}_bbox.npy"))
            if path.suffix.lower() in LOOSE_SUFFIXES and not files.boxes.is_file():
                continue  # a note to the data set, say
            if other := found.get((split, name)):
                raise UserError(f"{path} and {other.events} are one recording in two files: move one of them away")
            found[split, name] = files
    if not found:
        raise UserError(f"{source} has no recordings: expected {{{','.join(SPLITS)}}}/*{{{','.join(SUFFIXES)}}}")
    return list(found.values())


def _remove_empty(folder: Path) -> None:
    """Only if empty: another run may be at work in the same output folder."""
    for each in [*folder.glob("*"), folder]:
        with suppress(OSError):
            each.rmdir()


def _summarise(outcomes: Sequence[Report | UserError], dataset: DatasetConfig, out: Path, console: Console) -> int:
    """Print what there is now, what was dropped and why, and what failed. Returns the exit code."""
    reports = [outcome for outcome in outcomes if isinstance(outcome, Report)]
    errors = [outcome for outcome in outcomes if isinstance(outcome, UserError)]
    table = Table("", *SPLITS, "total", title=str(out))
    for column in table.columns[1:]:
        column.justify = "right"

    def add_row(title: str, count: Callable[[Report], int]) -> None:
        counts = [sum(count(report) for report in reports if report.split == split) for split in SPLITS]
        table.add_row(title, *(f"{number:,}" for number in [*counts, sum(counts)]))

    def add_reasons(title: str, counts: Callable[[Report], dict[str, int]], reasons: Iterable[str]) -> None:
        table.add_section()
        for reason in reasons:
            add_row(f"{title}: {reason}", lambda report, reason=reason: counts(report).get(reason, 0))

    add_row("sequences", lambda report: bool(report.num_frames))
    add_row("of these finished before", lambda report: bool(report.num_frames) and report.was_present)
    add_row("recordings without a usable box", lambda report: not report.num_frames)
    add_row("frames", lambda report: report.num_frames)
    add_row("labelled frames", lambda report: report.num_labelled)
    add_row("events", lambda report: report.num_events)
    add_reasons("boxes", lambda report: report.boxes_per_class, dataset.classes)
    add_reasons("dropped boxes", lambda r: r.dropped_boxes, _reasons(r.dropped_boxes for r in reports))
    add_reasons("events", lambda r: r.events_by_fault, _reasons(r.events_by_fault for r in reports))
    console.print(table)
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 2 if errors else 0


def _reasons(counts: Iterable[dict[str, int]]) -> list[str]:
    return list(sum(map(Counter, counts), Counter()))


if __name__ == "__main__":
    sys.exit(main())
