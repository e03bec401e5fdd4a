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

from config.command_line import errors_without_traceback
from config.errors import UserError
from config.search_path import RECORDED, with_absolute_folders
from data.recordings.growth import Growth
from modules.deployment.detecting import Job, Stop, Tally, detect
from modules.deployment.network import Network
from modules.deployment.outs import check_outs
from modules.deployment.windows import MOST_HZ, Late, open_recording, reading_for
from scripts.parallel import run_apart

FLAGS = {"follow": False, "overwrite": False}
NUMBERS: dict[str, tuple[float | None, float, float]] = {  # default, least, most
    "rate_hz": (20.0, 0.01, MOST_HZ),
    "threshold": (None, 0.0, 1.0),
    "idle_s": (float("inf"), 0.01, float("inf")),
    "late_ms": (200.0, 0.0, 1e9),
    "stream": (None, 0, 1000),
}
WORDS = {
    "precision": ("32", "bf16", "auto"),
    "late": ("newest", "none"),
    "time_unit": ("s", "ms", "us", "ns"),
}


@dataclass(frozen=True)
class Arguments:
    source: Path
    outs: tuple[Path, ...]
    checkpoint: Path | None
    model: Path | None
    flags: dict[str, bool]
    numbers: dict[str, float | None]
    words: dict[str, str]
    overrides: list[str]


def parse(arguments: Sequence[str]) -> Arguments:
    arguments = with_absolute_folders(arguments)
    folders = [word for word in arguments if word.startswith(RECORDED)]
    arguments = [word for word in arguments if word not in folders]
    sources = [word for word in arguments if "=" not in word]
    pairs = [(key, value) for key, _, value in (word.partition("=") for word in arguments if "=" in word)]
    outs = tuple(Path(value).expanduser() for key, value in pairs if key == "out" for value in _listed(value))
    values = {key: value for key, value in pairs if key != "out"}
    if len(sources) != 1 or not outs:
        raise UserError("give one SOURCE and at least one out=FILE; --help tells more")
    flags = {name: _flag(name, values.pop(name, None)) for name in FLAGS}
    numbers = {name: _number(name, values.pop(name, None)) for name in NUMBERS}
    words = {name: _word(name, values.pop(name)) for name in WORDS if name in values}
    for name in {"idle_s", "late", "late_ms"} & dict(pairs).keys():
        if not flags["follow"]:
            raise UserError(f"{name} is of a file that grows: add follow=true, or leave it out")
    files = {"checkpoint": values.pop("checkpoint", None)}
    is_exported = values.get("model", "").lower().endswith(".onnx")
    files["model"] = values.pop("model") if is_exported else None
    if (files["checkpoint"] is None) == (files["model"] is None):
        raise UserError("give one of checkpoint=FILE and model=FILE.onnx")
    overrides = [f"{key}={value}" for key, value in values.items()]
    if is_exported and (overrides or "precision" in words):
        what = overrides[0] if overrides else "precision"
        raise UserError(f"{what}: an exported model is as it was exported. Leave that out, or take checkpoint=FILE")
    paths = {name: None if text is None else Path(text).expanduser() for name, text in files.items()}
    all_overrides = [*folders, *overrides] if overrides else []
    return Arguments(Path(sources[0]), outs, paths["checkpoint"], paths["model"], flags, numbers, words, all_overrides)


def _listed(value: str) -> list[str]:
    """out=a.npy, or out=[a.npy,b.csv]."""
    return [part.strip() for part in value[1:-1].split(",")] if value[:1] == "[" and value[-1:] == "]" else [value]


def _flag(name: str, text: str | None) -> bool:
    if text is None:
        return FLAGS[name]
    if text.lower() not in ("true", "false"):
        raise UserError(f"{name}={text}: give true or false")
    return text.lower() == "true"


def _number(name: str, text: str | None) -> float | None:
    default, least, most = NUMBERS[name]
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError as error:
        raise UserError(f"{name}={text}: give a number") from error
    if not least <= value <= most or (name == "stream" and value != int(value)):
        raise UserError(f"{name}={text}: give a number from {least:g} to {most:g}")
    return value


def _word(name: str, text: str) -> str:
    if text not in WORDS[name]:
        raise UserError(f"{name}={text}: give one of {', '.join(WORDS[name])}")
    return text


def run(arguments: Arguments) -> tuple[str, int]:
    """Do all of it; returns what to tell, and the exit code."""
    growth = Growth(_given(arguments, "idle_s")) if arguments.flags["follow"] else None
    with Stop(growth) as stop:
        network = load_network(arguments)
        stream = arguments.numbers["stream"]
        reading = reading_for(
            arguments.source,
            network.description,
            arguments.words.get("time_unit"),
            None if stream is None else int(stream),
        )
        recording = open_recording(arguments.source, network.description, reading, growth)
        late = Late(arguments.words.get("late", "newest"), _given(arguments, "late_ms"))  # type: ignore[bad-argument-type]
        job = Job(recording, network, arguments.outs, _given(arguments, "rate_hz"), late if growth else None)
        tally = detect(job, stop)
    is_cut = stop.signum is not None and growth is None
    return told(job, tally, stop), 128 + (stop.signum or 0) if is_cut else 0


def load_network(arguments: Arguments) -> Network:
    threshold = arguments.numbers["threshold"]
    if arguments.model is not None:
        from modules.deployment.onnx_network import OnnxNetwork

        return OnnxNetwork(arguments.model, threshold)
    from modules.deployment.checkpoint import config_of_checkpoint, load_detector
    from modules.deployment.torch_network import TorchNetwork, dtype_of

    assert arguments.checkpoint is not None
    config = config_of_checkpoint(arguments.checkpoint, arguments.overrides)
    detector = load_detector(config, arguments.checkpoint)
    return TorchNetwork(detector, config, dtype_of(arguments.words.get("precision", "32"), detector), threshold)


def _given(arguments: Arguments, name: str) -> float:
    value = arguments.numbers[name]
    assert value is not None, "it has a default"
    return value


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
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        sys.exit(0 if sys.argv[1:] else 2)
    exit_code = 0
    with errors_without_traceback():
        arguments = parse(sys.argv[1:])
        if not arguments.source.exists():
            raise UserError(f"{arguments.source} not found")
        check_outs(arguments.outs, arguments.source, arguments.flags["overwrite"])
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
