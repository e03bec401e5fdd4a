"""Turn raw recordings and their boxes into sequences for training.

python scripts/preprocess.py IN OUT dataset=gen4 workers=8
python scripts/preprocess.py IN OUT dataset=gen4 dataset.downsample_by_factor_2=false   # full beside half resolution
python scripts/preprocess.py IN OUT dataset=gen4 sizes=[[360,640],[540,960],[720,1280]]  # in one pass over the events
python scripts/preprocess.py IN OUT dataset=gen1 reference_gen1_spacing=true            # windows as in RVT's own files
python scripts/preprocess.py IN OUT dataset=gen4 layout=both     # files of frames: compact (the default), rvt or both
python scripts/preprocess.py IN OUT dataset=gen4 shard=3/16      # one of 16 jobs, on this or another machine
python scripts/preprocess.py IN OUT dataset=gen4 shards=16 launcher=submitit submitit.slurm_partition=cpu  # all of them

IN holds {train,val,test}/<name>_td.h5 (or another format of docs/formats.md) and <name>_bbox.npy beside each. Finished
sequences are left alone, so a run that was stopped goes on where it was; one in the other layout, or with some of the
sizes, gets what it lacks. A faulty recording is told at the end and stops no other. Training reads the compact files,
RVT's own code those of layout=rvt. Where the recordings are gone, scripts/resample_frames.py makes smaller frames.

Parts count from 1 (SLURM: --array=1-16, shard=$SLURM_ARRAY_TASK_ID/16). Any number of commands may work on one OUT
at once, with or without shard=: each sequence is made by one of them, and what a killed one was at is taken up by the
next. The same command without shard= makes what is missing and prints the sum.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from config.errors import UserError
from config.schema import DatasetConfig
from data.layout import SPLITS, FrameFiles, SequenceLayout
from data.recordings.boxes import OTHER_CLASS
from data.recordings.event_files import LOOSE_SUFFIXES, SUFFIXES
from data.recordings.names import BOXES_SUFFIX, boxes_beside, recording_name
from data.recordings.preprocessing import PARTIAL_FOLDER, preprocess_recording, workplace_of
from data.recordings.usable import RecordingFiles, Report
from scripts.frame_commands import exit_code, frame_options, tell_errors
from scripts.frame_sizes import HELP, load_sized_dataset
from scripts.parallel import WorkerDiedError, run_beside_others
from scripts.shards import Launch, split_shard

_ALIASES = {"reference_gen1_spacing": "dataset.preprocessing.reference_gen1_spacing"}


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_code(partial(_preprocess, sys.argv[1:] if arguments is None else arguments))


def _preprocess(arguments: Sequence[str]) -> int:
    launch, arguments = Launch.split(arguments)
    options = frame_options(__doc__, ["IN", "OUT"], arguments, keys=[HELP, "shard=K/N"])
    source, out = options.paths
    shard, overrides = split_shard(options.overrides)
    dataset, sizes = load_sized_dataset([_full_key(override) for override in overrides])
    found, console = find_recordings(source), Console()
    if launch:
        launch.run("preprocess", arguments)  # what follows makes what they have left, and tells the sum
    if shard:
        found = replace(found, recordings=shard.part(found.recordings, lambda files: files.events.stat().st_size))
    preprocess = partial(preprocess_recording, out, dataset, sizes=sizes, layout=options.files)
    outcomes = run_beside_others(
        preprocess, found.recordings, options.workers, console, name_of=lambda files: files.events
    )
    _remove_remains(out, found.recordings, outcomes)
    _remove_empty(out / PARTIAL_FOLDER)
    code = _summarise(found, outcomes, [dataset.with_frames_of(size) for size in sizes], options.files, out, console)
    if shard:
        print(f"This was part {shard}. The same command without shard= makes what is missing and prints the sum")
    return code


def _full_key(override: str) -> str:
    key, _, value = override.partition("=")
    return f"{_ALIASES.get(key, key)}={value}"


@dataclass(frozen=True)
class Found:
    """What lies in the folders of the splits."""

    recordings: list[RecordingFiles]
    faults: list[UserError]  # files that may be recordings and are not read
    notes: list[str]


def find_recordings(source: Path) -> Found:
    """Recordings of all splits by name. Raises UserError where there is none."""
    found: dict[tuple[str, str], RecordingFiles] = {}
    faults, notes = [], []
    for split in SPLITS:
        paths = [path for path in sorted((source / split).glob("*")) if not path.name.startswith(".")]
        for path in paths:
            if path.suffix.lower() not in SUFFIXES:
                continue
            files = RecordingFiles(split, recording_name(path), path, boxes_beside(path))
            if path.suffix.lower() in LOOSE_SUFFIXES and not files.boxes.is_file():
                continue  # a note to the data set, say
            if other := found.get((split, files.name)):
                faults.append(UserError(f"{path} and {other.events} are one recording in two files: move one away"))
                continue
            found[split, files.name] = files
        for path in paths:
            if not path.name.endswith(BOXES_SUFFIX) or (split, path.name.removesuffix(BOXES_SUFFIX)) in found:
                continue
            if others := _unread(path, paths):
                read = ", ".join(SUFFIXES)
                faults.append(
                    UserError(f"{others[0]} is not read, though boxes lie beside it: events are read from {read}")
                )
            else:
                notes.append(f"{path}: no recording lies beside it")
    faults += [UserError(message) for message in _overlooked(source)]
    if not found and not faults:
        raise UserError(f"{source} has no recordings: expected {{{','.join(SPLITS)}}}/*{{{','.join(SUFFIXES)}}}")
    return Found(list(found.values()), faults, notes)


def _overlooked(source: Path) -> Iterator[str]:
    """Folders with recordings where none are looked for: beside the splits, or below one."""
    splits = [source / split for split in SPLITS]
    beside = [folder for folder in sorted(source.glob("*/")) if folder not in splits]
    for folder in [*beside, *(below for split in splits for below in sorted(split.glob("*/")))]:
        if not folder.name.startswith(".") and (boxes := next(folder.glob(f"*{BOXES_SUFFIX}"), None)):
            expected = f"recordings and boxes lie directly in {', '.join(SPLITS)}"
            yield f"{folder} holds {boxes.name} and is not read: {expected}. Move its files there, or it away"


def _unread(boxes: Path, paths: list[Path]) -> list[Path]:
    """Files, or folders, that are called like the recording of these boxes, and whose format is not read."""
    name = boxes.name.removesuffix(BOXES_SUFFIX)
    others = [path for path in paths if path.suffix.lower() not in SUFFIXES and not path.name.endswith(BOXES_SUFFIX)]
    return [path for path in others if path.name == name or path.name.startswith((f"{name}.", f"{name}_td."))]


def _remove_remains(out: Path, recordings: Sequence[RecordingFiles], outcomes: Sequence[Report | UserError]) -> None:
    """What processes that have died left half-done."""
    for files, outcome in zip(recordings, outcomes, strict=True):
        if isinstance(outcome, WorkerDiedError):
            with suppress(UserError, OSError), workplace_of(out, files):
                pass


def _remove_empty(folder: Path) -> None:
    """Only if empty: another run may be at work in the same output folder."""
    for each in [*folder.glob("*"), folder]:
        with suppress(OSError):
            each.rmdir()


def _summarise(
    found: Found,
    outcomes: Sequence[Report | UserError],
    datasets: Sequence[DatasetConfig],
    layout: FrameFiles,
    out: Path,
    console: Console,
) -> int:
    """Print what there is now, what was dropped and why, and what failed. Returns the exit code.

    `datasets`: one for each size of frames.
    """
    dataset = datasets[0]
    reports = [outcome for outcome in outcomes if isinstance(outcome, Report)]
    console.print(_table(reports, datasets, out))
    for note in [*found.notes, *(note for report in reports for note in report.notes)]:
        print(f"note: {note}", file=sys.stderr)
    errors = [outcome for outcome in outcomes if isinstance(outcome, UserError)]
    errors += [
        UserError(f"{files.boxes}: {_where_boxes_went(outcome, dataset)}")
        for files, outcome in zip(found.recordings, outcomes, strict=True)
        if isinstance(outcome, Report) and outcome.num_frames == 0 and outcome.num_boxes_read
    ]
    made = [
        SequenceLayout.of(out / report.split / report.name, each)
        for report in reports
        for each in datasets
        if report.num_frames
    ]
    errors += [
        UserError(f"{path} was removed while this command ran. Run it again")
        for sequence in made
        for path in sequence.frame_files(layout)
        if not path.is_file()
    ]
    return tell_errors([*errors, *found.faults])


def _where_boxes_went(report: Report, dataset: DatasetConfig) -> str:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.dropped_boxes.items())
    ids = ", ".join(f"{raw}: {name}" for raw, name in dataset.preprocessing.class_ids.items())
    other = any(reason.startswith(OTHER_CLASS) for reason in report.dropped_boxes)
    told = f". dataset.preprocessing.class_ids has {{{ids}}}: name the ids that occur there" if other else ""
    return f"none of its {report.num_boxes_read:,} boxes remains, so there is no sequence: {reasons}{told}"


def _table(reports: Sequence[Report], datasets: Sequence[DatasetConfig], out: Path) -> Table:
    sizes = ", ".join("{} x {}".format(*dataset.loaded_hw) for dataset in datasets)
    table = Table("", *SPLITS, "total", title=f"{out}: frames of {sizes}")
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
    if any(report.num_files_added for report in reports):
        add_row("files of frames added to them", lambda report: report.num_files_added)
    add_row("recordings without a usable box", lambda report: not report.num_frames and bool(report.num_boxes_read))
    add_row("recordings without boxes", lambda report: not report.num_frames and not report.num_boxes_read)
    add_row("frames", lambda report: report.num_frames)
    add_row("labelled frames", lambda report: report.num_labelled)
    add_row("events read", lambda report: report.num_events)
    add_row("events in frames", lambda report: report.num_events_in_frames)
    if any(report.moved_boxes for report in reports):
        add_row("boxes moved to the time of their frame", lambda report: report.moved_boxes)
    add_reasons("boxes", lambda report: report.boxes_per_class, datasets[0].label_classes)
    add_reasons("dropped boxes", lambda r: r.dropped_boxes, _reasons(r.dropped_boxes for r in reports))
    add_reasons("events", lambda r: r.events_by_fault, _reasons(r.events_by_fault for r in reports))
    return table


def _reasons(counts: Iterable[dict[str, int]]) -> list[str]:
    return list(sum(map(Counter, counts), Counter()))


if __name__ == "__main__":
    sys.exit(main())
