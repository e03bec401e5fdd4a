"""Boxes of a recording, by a trained network: no labels, no preprocessing.

    python scripts/detect.py SOURCE checkpoint=FILE out=boxes.jsonl [out=film.mp4 ...] [OPTIONS]
    python scripts/detect.py SOURCE model=FILE.onnx out=boxes.npy        # of scripts/export.py; without torch
    python scripts/detect.py SOURCE checkpoint=FILE out=boxes.csv follow=true    # SOURCE is still being written

SOURCE is any recording that scripts/preprocess.py reads (docs/formats.md). The suffix of each `out` tells what is
written: .jsonl (a line for each window), .csv (a line for each box), .npy (Prophesee's boxes), .json (COCO), .mp4 or
.gif; boxes in pixels of the sensor, times in us. Another project's checkpoint needs model=NAME dataset=NAME beside it.

Options:
    rate_hz=20            windows of the trained length a second, up to 1000; above 20 Hz windows of 50 ms overlap
    threshold=...         least score; the network's own (model.postprocess.confidence_threshold) without it
    overwrite=true        replace files that exist
    precision=32          or bf16, or auto (bf16 where the processor has hardware for it); of a checkpoint
    time_unit=, stream=   of a recording that leaves them open: dataset.preprocessing.time_unit, .stream
    follow=true           read on while a RAW or DAT file grows, until Ctrl-C, SIGTERM or idle_s=SECONDS without growth
    late=newest           once a window ends 200 ms (late_ms=200) before the newest event in the file, all that wait are
                          left out but the newest whole one; late=none leaves none out
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import get_args

from config.command_line import errors_without_traceback
from config.errors import UserError
from data.recordings.formats.common import TimeUnit
from data.recordings.growth import Growth
from modules.deployment.detecting import Job, Stop, Tally, detect
from modules.deployment.network import Network, Precision
from modules.deployment.outs import check_outs
from modules.deployment.windows import MOST_HZ, Late, LateRule, open_recording, reading_for
from scripts.parallel import run_apart
from scripts.words import Words, help_where_asked, listed

AS_EXPORTED = "an exported model is as it was exported. Leave that out, or take checkpoint=FILE"


@dataclass(frozen=True)
class Arguments:
    source: Path
    outs: tuple[Path, ...]
    checkpoint: Path | None
    model: Path | None
    overrides: list[str]
    overwrite: bool
    rate_hz: float
    threshold: float | None
    precision: Precision
    time_unit: TimeUnit | None
    stream: int | None
    follow: bool
    idle_s: float
    late: Late


def parse(arguments: Sequence[str]) -> Arguments:
    words = Words(arguments)
    outs = tuple(Path(path).expanduser() for value in words.all("out") for path in listed(value))
    if len(words.paths) != 1 or not outs:
        raise UserError("give one SOURCE and at least one out=FILE; --help tells more")
    follow = words.flag("follow")
    for key in ("idle_s", "late", "late_ms"):
        if key in words and not follow:
            raise UserError(f"{key} is of a file that grows: add follow=true, or leave it out")
    checkpoint, model = words.path("checkpoint"), words.path("model", suffix=".onnx")
    if (checkpoint is None) == (model is None):
        raise UserError("give one of checkpoint=FILE and model=FILE.onnx")
    if model is not None and "precision" in words:
        raise UserError(f"precision: {AS_EXPORTED}")
    parsed = Arguments(
        source=words.paths[0],
        outs=outs,
        checkpoint=checkpoint,
        model=model,
        overwrite=words.flag("overwrite"),
        rate_hz=words.number("rate_hz", 20.0, 0.01, MOST_HZ),
        threshold=words.number("threshold", None, 0, 1),
        precision=words.choice("precision", "32", get_args(Precision)),
        time_unit=words.choice("time_unit", None, get_args(TimeUnit)),
        stream=words.whole_number("stream", 0, 1000),
        follow=follow,
        idle_s=words.number("idle_s", float("inf"), 0.01, float("inf")),
        late=Late(words.choice("late", "newest", get_args(LateRule)), words.number("late_ms", 200.0, 0, 1e9)),
        overrides=words.overrides,
    )
    if model is not None and parsed.overrides:
        raise UserError(f"{parsed.overrides[-1]}: {AS_EXPORTED}")
    return parsed


def run(arguments: Arguments) -> tuple[str, int]:
    """Do all of it; returns what to tell, and the exit code."""
    growth = Growth(arguments.idle_s) if arguments.follow else None
    with Stop(growth) as stop:
        network = load_network(arguments)
        reading = reading_for(arguments.source, network.description, arguments.time_unit, arguments.stream)
        recording = open_recording(arguments.source, network.description, reading, growth)
        late = arguments.late if arguments.follow else None
        job = Job(recording, network, arguments.outs, arguments.rate_hz, late)
        tally = detect(job, stop)
    is_cut = stop.signum is not None and growth is None
    return told(job, tally, stop), 128 + (stop.signum or 0) if is_cut else 0


def load_network(arguments: Arguments) -> Network:
    if arguments.model is not None:
        from modules.deployment.onnx_network import OnnxNetwork

        return OnnxNetwork(arguments.model, arguments.threshold)
    from modules.deployment.checkpoint import config_of_checkpoint, load_detector
    from modules.deployment.torch_network import TorchNetwork, dtype_of

    assert arguments.checkpoint is not None
    config = config_of_checkpoint(arguments.checkpoint, arguments.overrides)
    detector = load_detector(config, arguments.checkpoint)
    return TorchNetwork(detector, config, dtype_of(arguments.precision, detector), arguments.threshold)


def told(job: Job, tally: Tally, stop: Stop) -> str:
    """The summary: what was written, what was left out, how long it took."""
    description = job.network.description
    lines = [
        f"{', '.join(map(str, job.outs))}: {tally.num_boxes:,} boxes in {tally.num_windows:,} windows of "
        f"{description.window_ms} ms at {job.rate_hz:g} Hz, up to {tally.last_us / 1e6:,.3f} s"
    ]
    if stop.signum is not None:
        lines.append(f"ended by {signal.Signals(stop.signum).name}: what was found until then is written")
    lines += [f"{count:,} {reason}" for reason, count in job.recording.faults.items() if count]
    trained_hz = 1000 / description.window_ms
    if job.rate_hz != trained_hz:
        lines.append(
            f"the network was trained on {trained_hz:g} windows a second; how well it does at others, AP tells"
        )
    if not tally.num_windows:
        return "\n".join(lines)
    if job.late is not None:
        share = tally.num_left_out / (tally.num_windows + tally.num_left_out)
        rule = f"late={job.late.rule}"
        lines.append(f"windows left out because they were late: {tally.num_left_out:,} ({share:.1%}; {rule})")
        ms = [1000 * tally.behind.percentile(p) for p in (0.5, 0.99)] if len(tally.behind) else [0.0, 0.0]
        end = f"{1000 * tally.behind_s:,.0f} ms at the end"
        lines.append(f"boxes came behind real time by {ms[0]:,.0f} ms (p50), {ms[1]:,.0f} ms (p99), {end}")
    else:
        of_real_time = tally.num_windows / job.rate_hz / tally.seconds
        lines.append(f"{tally.num_windows / tally.seconds:,.1f} windows/s, {of_real_time:.2f} x real time")
    return "\n".join([*lines, tally.latency.table()])


def main() -> None:
    help_where_asked(__doc__)
    exit_code = 0
    with errors_without_traceback():
        arguments = parse(sys.argv[1:])
        if not arguments.source.exists():
            raise UserError(f"{arguments.source} not found")
        check_outs(arguments.outs, arguments.source, arguments.overwrite)
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, _hand_on)
        # an odd file may end the process that reads it
        summary, exit_code = run_apart(run, arguments, arguments.source)
        print(summary)
    sys.exit(exit_code)


def _hand_on(signum: int, _: FrameType | None) -> None:
    for child in multiprocessing.active_children():
        if child.pid is not None:
            os.kill(child.pid, signum)


if __name__ == "__main__":
    main()
