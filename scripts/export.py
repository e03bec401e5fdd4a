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
from typing import get_args

from config.command_line import errors_without_traceback
from config.errors import UserError
from modules.deployment.description import Description, ExportPrecision
from scripts.words import Words, help_where_asked


@dataclass(frozen=True)
class Arguments:
    checkpoint: Path
    out: Path
    recording: Path | None
    nms: bool
    lanes: int | None
    precision: ExportPrecision
    threshold: float | None
    overwrite: bool
    overrides: list[str]


def parse(arguments: Sequence[str]) -> Arguments:
    words = Words(arguments)
    checkpoint = words.path("checkpoint")
    if len(words.paths) != 1 or words.paths[0].suffix.lower() != ".onnx" or checkpoint is None:
        raise UserError("give checkpoint=FILE and OUT.onnx; --help tells more")
    return Arguments(
        checkpoint=checkpoint,
        out=words.paths[0],
        recording=words.path("recording"),
        nms=words.flag("nms"),
        lanes=words.whole_number("lanes", 1, 1024),
        precision=words.choice("precision", "float32", get_args(ExportPrecision)),
        threshold=words.number("threshold", None, 0, 1),
        overwrite=words.flag("overwrite"),
        overrides=words.overrides,
    )


def run(arguments: Arguments) -> str:
    """Write the file; returns the summary."""
    from modules.deployment.checkpoint import config_of_checkpoint, load_detector
    from modules.deployment.comparison import compare, frames_of, random_frames
    from modules.deployment.export import Wish, export

    out = arguments.out
    if out.exists() and not arguments.overwrite:
        raise UserError(f"{out} exists already: give another name, or overwrite=true")
    config = config_of_checkpoint(arguments.checkpoint, arguments.overrides)
    detector = load_detector(config, arguments.checkpoint).cpu()
    changes = {} if arguments.threshold is None else {"confidence_threshold": arguments.threshold}
    description = Description.of(config).model_copy(update=changes)
    wish = Wish(arguments.lanes, arguments.nms, arguments.precision)
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
    help_where_asked(__doc__)
    with errors_without_traceback():
        print(run(parse(sys.argv[1:])))


if __name__ == "__main__":
    main()
