"""AP of one checkpoint at other rates of windows than it was trained at: a table and a figure.

    python scripts/rates.py SOURCE [SOURCE ...] checkpoint=FILE out=FOLDER [OPTIONS]

SOURCE is a recording with NAME_bbox.npy beside it, or a folder of such: what scripts/preprocess.py reads. Boxes are
read, and AP measured, as preprocessing and validation do it. The same labelled frames count at every rate: a window
ends at each of them, and others at equal distances between. State-space cells (S5) get the step scale of the rate,
LSTMs stay as they are. FOLDER gets rates.json, rates.csv and rates.png.

Options:
    rates=[20,40,80,100,200]    windows a second; those that fit whole between the labelled frames
    windows=[trained,rate]      of the trained length, overlapping at higher rates; of 1 / rate, counts as they come
    threshold=...               least score; the checkpoint's own without it
    precision=32                or bf16, or auto (bf16 where the processor has hardware for it)
Another project's checkpoint needs model=NAME dataset=NAME.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from config.command_line import errors_without_traceback
from config.errors import UserError
from config.schema import Config
from modules.deployment.checkpoint import config_of_checkpoint, load_detector
from modules.deployment.labelled import Labelled, find_labelled
from modules.deployment.network import Precision
from modules.deployment.rates import Rate, RateMeasure, RateResult, WindowLength
from modules.deployment.torch_network import dtype_of
from modules.deployment.windows import MOST_HZ
from modules.evaluation.results import results_dict
from modules.pictures.rates import draw_rates
from modules.reports.tables import Table
from scripts.parallel import run_apart
from scripts.words import Words, help_where_asked

LABELS: dict[WindowLength, str] = {"trained": "windows of the trained length", "rate": "windows of 1 / rate"}


@dataclass(frozen=True)
class Arguments:
    sources: list[Path]
    checkpoint: Path
    out: Path
    rates: list[Rate]
    threshold: float | None
    precision: Precision
    overrides: list[str]


def parse(arguments: Sequence[str]) -> Arguments:
    words = Words(arguments)
    checkpoint, out = words.path("checkpoint"), words.path("out")
    if not words.paths or checkpoint is None or out is None:
        raise UserError("give SOURCE, checkpoint=FILE and out=FOLDER; --help tells more")
    hertz = words.numbers("rates", [20.0, 40.0, 80.0, 100.0, 200.0], 0.01, MOST_HZ)
    lengths = words.some("windows", get_args(WindowLength))
    return Arguments(
        sources=words.paths,
        checkpoint=checkpoint,
        out=out,
        rates=[Rate(hz, length) for length in lengths for hz in hertz],
        threshold=words.number("threshold", None, 0, 1),
        precision=words.choice("precision", "32", get_args(Precision)),
        overrides=words.overrides,
    )


def run(arguments: Arguments) -> str:
    """Measure, write the files; returns what to tell."""
    config = config_with(arguments)
    recordings = [Labelled.of(files, config.dataset) for files in find_labelled(arguments.sources)]
    for note in (note for each in recordings for note in each.notes):
        print(f"note: {note}", file=sys.stderr)
    detector = load_detector(config, arguments.checkpoint)
    measure = RateMeasure(detector, config, recordings, dtype_of(arguments.precision, detector))
    for rate in arguments.rates:
        measure.grids(rate)  # one that does not fit is told before the hours of work
    results: list[RateResult] = []
    for rate in arguments.rates:
        window_us = rate.window_us(config.dataset)
        same = [each for each in results if (each.rate.hz, each.window_us) == (rate.hz, window_us)]
        results.append(replace(same[0], rate=rate) if same else measure(rate))
        ap = results[-1].result.metrics["AP"]
        print(f"{rate.hz:g} Hz, windows of {window_us / 1000:g} ms: AP {ap:.4f}", file=sys.stderr, flush=True)
    table = table_of(results)
    try:
        write(arguments, results, table)
    except OSError as error:
        raise UserError(f"{arguments.out} cannot be written: {error.strerror}") from error
    return f"{table.format()}\n{told_of(recordings, results)}"


def config_with(arguments: Arguments) -> Config:
    """The checkpoint's, with the command's threshold."""
    config = config_of_checkpoint(arguments.checkpoint, arguments.overrides)
    if arguments.threshold is None:
        return config
    postprocess = config.model.postprocess.model_copy(update={"confidence_threshold": arguments.threshold})
    return config.model_copy(update={"model": config.model.model_copy(update={"postprocess": postprocess})})


def write(arguments: Arguments, results: Sequence[RateResult], table: Table) -> None:
    arguments.out.mkdir(parents=True, exist_ok=True)
    content = {
        "checkpoint": str(arguments.checkpoint),
        "sources": [str(path) for path in arguments.sources],
        "precision": arguments.precision,
        "rates": [as_dict(each) for each in results],
    }
    (arguments.out / "rates.json").write_text(json.dumps(content, indent=2) + "\n")
    (arguments.out / "rates.csv").write_text(table.format("csv"))
    lines = {length: [each for each in results if each.rate.length == length] for length in LABELS}
    points = {
        LABELS[length]: [(r.rate.hz, r.result.metrics["AP"], r.result.metrics["AP_50"]) for r in line]
        for length, line in lines.items()
        if line
    }
    draw_rates(points, arguments.checkpoint.name).save(arguments.out / "rates.png")


def as_dict(result: RateResult) -> dict[str, Any]:
    return {
        "rate_hz": result.rate.hz,
        "windows": result.rate.length,
        "window_ms": result.window_us / 1000,
        "step_scale": result.step_scale,
        "frames": result.num_frames,
        "label_times_left_out": dict(result.left_out),
        **results_dict(result.result),
    }


def table_of(results: Sequence[RateResult]) -> Table:
    header = ["windows/s", "window, ms", "step scale", "frames", "labelled", "scored", "AP", "AP_50"]
    rows = [
        [
            f"{each.rate.hz:g}",
            f"{each.window_us / 1000:g}",
            None if each.step_scale is None else f"{each.step_scale:g}",
            each.num_frames,
            each.result.protocol["labelled_frames"],
            each.result.num_frames,
            each.result.metrics["AP"],
            each.result.metrics["AP_50"],
        ]
        for each in results
    ]
    return Table("", header, rows)


def told_of(recordings: Sequence[Labelled], results: Sequence[RateResult]) -> str:
    """The protocol, and what is in no figure."""
    protocol = results[0].result.protocol
    box_filter = protocol["box_filter_px"]
    names = ", ".join(protocol["protocols"]) or "thresholds that no named protocol has"
    lines = [
        f"Protocol: {names}; score {protocol['score']}, from {protocol['confidence_threshold']:g} on, NMS "
        f"{protocol['nms_threshold']:g}; boxes of at least {box_filter['min_side']:g} px a side and "
        f"{box_filter['min_diagonal']:g} px across of frames of {' x '.join(map(str, protocol['resolution_hw']))}, "
        f"from {box_filter['skip_first_ms']} ms on. Frames without such a box are labelled, and not scored"
    ]
    lines += [f"{count:,} label times left out: {reason}" for reason, count in results[0].left_out.items()]
    dropped: dict[str, int] = {}
    for each in recordings:
        for reason, count in each.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    return "\n".join([*lines, *(f"{count:,} boxes left out: {reason}" for reason, count in dropped.items())])


def main() -> None:
    help_where_asked(__doc__)
    with errors_without_traceback():
        arguments = parse(sys.argv[1:])
        if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
            raise UserError(f"{arguments.out} is there already, and not empty. Give a new folder")
        print(run_apart(run, arguments, arguments.sources[0]))  # an odd file may end the process that reads it


if __name__ == "__main__":
    main()
