"""A trained network as an ONNX file that runs without this project.

    python scripts/export.py checkpoint=FILE OUT.onnx [recording=FILE] [OPTIONS]
    python scripts/detect.py SOURCE model=OUT.onnx out=boxes.jsonl

The file takes `frames` [lanes, channels, height, width], uint8 as counted, and the states of each stage, zeros at the
start of a stream; it gives `predictions` and the states to be given with the next frame. Padding and decoding are
inside. Before it gets its name it is run by ONNX Runtime on the CPU and compared with PyTorch, frame by frame.
docs/deployment.md has inputs, outputs and an example.

Options:
    recording=FILE        compare on its first 20 windows; without it, on frames of random events
    nms=true              threshold and suppression inside too: `detections` instead of `predictions`
    lanes=4               exactly as many streams at once; without it any number
    precision=float32     or float16, or int8 (weights of matrix products, rounded; inputs as they come)
    threshold=...         least score, instead of the network's own
    overwrite=true        replace OUT.onnx
Another project's checkpoint needs model=NAME dataset=NAME.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from config.command_line import errors_without_traceback
from config.errors import UserError
from config.search_path import RECORDED, with_absolute_folders

PRECISIONS = ("float32", "float16", "int8")
BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class Arguments:
    checkpoint: Path
    out: Path
    recording: Path | None
    nms: bool
    lanes: int | None
    precision: str
    threshold: float | None
    overwrite: bool
    overrides: list[str]


def parse(arguments: Sequence[str]) -> Arguments:
    arguments = with_absolute_folders(arguments)
    folders = [word for word in arguments if word.startswith(RECORDED)]
    arguments = [word for word in arguments if word not in folders]
    outs = [Path(word).expanduser() for word in arguments if "=" not in word]
    values = dict(word.split("=", 1) for word in arguments if "=" in word)
    if len(outs) != 1 or outs[0].suffix.lower() != ".onnx" or "checkpoint" not in values:
        raise UserError("give checkpoint=FILE and OUT.onnx; --help tells more")
    flags = {name: values.pop(name, "false").lower() for name in ("nms", "overwrite")}
    for name, text in flags.items():
        if text not in BOOLEANS:
            raise UserError(f"{name}={text}: give true or false")
    lanes = values.pop("lanes", "any")
    if lanes != "any" and not (lanes.isdecimal() and 1 <= int(lanes) <= 1024):
        raise UserError(f"lanes={lanes}: give a number from 1 to 1024, or leave it out for any")
    precision = values.pop("precision", "float32")
    if precision not in PRECISIONS:
        raise UserError(f"precision={precision}: give one of {', '.join(PRECISIONS)}")
    recording = values.pop("recording", None)
    return Arguments(
        checkpoint=Path(values.pop("checkpoint")).expanduser(),
        out=outs[0],
        recording=None if recording is None else Path(recording).expanduser(),
        nms=BOOLEANS[flags["nms"]],
        lanes=None if lanes == "any" else int(lanes),
        precision=precision,
        threshold=_threshold(values.pop("threshold", None)),
        overwrite=BOOLEANS[flags["overwrite"]],
        overrides=[*folders, *(f"{key}={value}" for key, value in values.items())] if values else [],
    )


def _threshold(text: str | None) -> float | None:
    try:
        value = None if text is None else float(text)
    except ValueError as error:
        raise UserError(f"threshold={text}: give a number") from error
    if value is not None and not 0 <= value <= 1:
        raise UserError(f"threshold={text}: give a number from 0 to 1")
    return value


def run(arguments: Arguments) -> str:
    """Write the file; returns the summary."""
    from modules.deployment.checkpoint import config_of_checkpoint, load_detector
    from modules.deployment.comparison import compare, frames_of, random_frames
    from modules.deployment.description import Description
    from modules.deployment.export import Precision, Wish, export

    out = arguments.out
    if out.exists() and not arguments.overwrite:
        raise UserError(f"{out} exists already: give another name, or overwrite=true")
    config = config_of_checkpoint(arguments.checkpoint, arguments.overrides)
    detector = load_detector(config, arguments.checkpoint).cpu()
    changes = {} if arguments.threshold is None else {"confidence_threshold": arguments.threshold}
    description = Description.of(config).model_copy(update=changes)
    wish = Wish(arguments.lanes, arguments.nms, cast(Precision, arguments.precision))
    frames = frames_of(arguments.recording, description) if arguments.recording else random_frames(description)
    model = export(detector, description, wish, arguments.checkpoint.name)
    partial = out.with_name(f".partial_{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(model.SerializeToString())
        difference = compare(partial, detector, description, frames)
        if wish.precision == "float32":
            difference.check(arguments.checkpoint)
        partial.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    told = f"the first {len(frames)} windows of {arguments.recording}" if arguments.recording else (
        f"{len(frames)} frames of random events (recording=FILE: on windows of it)"
    )  # fmt: skip
    size = out.stat().st_size / 1e6
    return f"{out}: {size:,.1f} MB. Against PyTorch in float32, on {told}: {difference}"


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        sys.exit(0 if sys.argv[1:] else 2)
    with errors_without_traceback():
        print(run(parse(sys.argv[1:])))


if __name__ == "__main__":
    main()
