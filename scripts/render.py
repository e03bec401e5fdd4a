"""A film of a sequence or a raw recording: events, and boxes over them where there are any.

    python scripts/render.py SOURCE OUT.mp4|OUT.gif [predictions=FOLDER | checkpoint=FILE] [dataset=NAME ...] [OPTIONS]

SOURCE is a preprocessed sequence's folder or a recording (docs/formats.md). Boxes come from the validation
folder `predictions`, or from the network of `checkpoint`, which runs along; labels, if there are any, are dashed lines.
The data set is the one of the predictions or the checkpoint; dataset=NAME, with any of its keys, names another
(--config-dir FOLDER: one of your own). Most recordings need none of it.

Options: threshold=0.25 (least score), start_s=0, seconds=... (how much of it), speed=1 (0.5: slow motion).
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from pydantic import ValidationError

from config.command_line import errors_without_traceback
from config.errors import UserError
from config.loading import load_dataset_config, load_validation_config
from config.schema import Config, DatasetConfig
from config.search_path import RECORDED, with_absolute_folders
from config.yaml_files import read_yaml
from data.layout import REPRESENTATIONS, is_sequence_folder
from models.detector import Detector
from models.weights.pretrained import Wanted, load_into
from modules.pictures import film
from modules.pictures.frames import draw_frame, draw_legend
from modules.run.config_in_file import config_in_file
from scripts.parallel import run_apart

FILM_WIDTH_PX, GIF_WIDTH_PX = 1280, 640


@dataclass(frozen=True)
class Arguments:
    source: Path
    out: Path
    predictions: Path | None
    checkpoint: Path | None
    threshold: float
    start_s: float
    seconds: float
    speed: float
    overrides: list[str]


def parse(arguments: Sequence[str]) -> Arguments:
    arguments = with_absolute_folders(arguments)
    folders = [word for word in arguments if word.startswith(RECORDED)]
    arguments = [word for word in arguments if word not in folders]
    paths = [word for word in arguments if "=" not in word]
    values = dict(word.split("=", 1) for word in arguments if "=" in word)
    if len(paths) != 2:
        raise UserError("give SOURCE and OUT.mp4 or OUT.gif; --help tells more")
    out = Path(paths[1])
    if out.suffix.lower() not in (".mp4", ".gif"):
        raise UserError(f"{out}: a film is .mp4 or .gif")
    numbers = {"threshold": 0.25, "start_s": 0.0, "seconds": float("inf"), "speed": 1.0}
    for name in numbers.keys() & values.keys():
        try:
            numbers[name] = float(values.pop(name))
        except ValueError as error:
            raise UserError(f"{name}: {error}") from error
    if numbers["speed"] <= 0:
        raise UserError("speed must be larger than 0: 1 is real time, 0.5 half as fast")
    files = {name: Path(values.pop(name)) if name in values else None for name in ("predictions", "checkpoint")}
    if all(files.values()):
        raise UserError("predictions and checkpoint contradict each other: leave one of them out")
    overrides = [f"{key}={value}" for key, value in values.items()]
    return Arguments(Path(paths[0]), out, **files, **numbers, overrides=[*folders, *overrides] if overrides else [])


def render(arguments: Arguments) -> int:
    """Write the film; returns the number of frames."""
    source = arguments.source
    if not source.exists():
        raise UserError(f"{source} not found")
    dataset, predictions = choose_boxes(arguments)
    if is_sequence_folder(source):
        if dataset is None:
            raise UserError(f"{source}: a sequence's folder does not tell its data set: add dataset=NAME")
        frames = film.sequence_frames(source, dataset)
        truth = film.sequence_truth(source, dataset)
    elif source.is_dir():
        raise UserError(f"{source} is no sequence's folder: it lacks {REPRESENTATIONS}")
    else:
        frames = film.recording_frames(source, dataset)
        truth = film.recording_truth(source, dataset)
    has_boxes = predictions is not None or truth is not None
    classes = dataset.classes if dataset is not None and has_boxes else ()
    window_ms = (dataset.representation if dataset else film.QUICK_LOOK).window_ms
    pictures = draw(arguments, frames, predictions, truth, classes)
    return write_film(arguments.out, pictures, fps=1000 / window_ms * arguments.speed)


def choose_boxes(arguments: Arguments) -> tuple[DatasetConfig | None, film.BoxesAt | None]:
    """The data set, and what gives predictions; either may be missing."""
    chosen = any(word.lstrip("+").startswith(("dataset=", "dataset.")) for word in arguments.overrides)
    if arguments.checkpoint is not None:
        config = config_of_checkpoint(arguments.checkpoint, arguments.overrides)
        detector = load_detector(config, arguments.checkpoint)
        return config.dataset, film.LivePredictions(detector, config.evaluation.score, arguments.threshold)
    dataset = load_dataset_config(arguments.overrides) if chosen else None
    if arguments.predictions is None:
        return dataset, None
    dataset = dataset or dataset_of_validation(arguments.predictions)
    name = film.name_of(arguments.source)
    return dataset, film.stored_predictions(arguments.predictions, name, dataset, arguments.threshold)


def dataset_of_validation(folder: Path) -> DatasetConfig:
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path} not found. Give the folder of a validation, or add dataset=NAME")
    try:
        return DatasetConfig.model_validate(read_yaml(path).get("dataset"))
    except ValidationError as error:
        told = error.errors()[0]
        key = ".".join(map(str, ("dataset", *told["loc"])))
        raise UserError(f"{path} is not of a validation: {key}: {told['msg']}. Add dataset=NAME") from error


def config_of_checkpoint(path: Path, overrides: list[str]) -> Config:
    """The config in a checkpoint of ours; the overrides' where there are any, as another project's file needs."""
    if overrides:
        folder = [] if any("dataset.path=" in word for word in overrides) else ["dataset.path=."]
        return load_validation_config([*overrides, *folder, f"checkpoint={path}"])
    return config_in_file(path)


def load_detector(config: Config, checkpoint: Path) -> Detector:
    detector = Detector(config.model, config.dataset.num_classes, config.partition_size)
    for line in load_into(detector, config.model, checkpoint, Wanted.of(config)):
        print(line)
    return detector.to("cuda" if torch.cuda.is_available() else "cpu")


def draw(
    arguments: Arguments,
    frames: Iterable[film.TimedFrame],
    predictions: film.BoxesAt | None,
    truth: film.BoxesAt | None,
    classes: Sequence[str],
) -> Iterator[Image.Image]:
    """Pictures of the part that is wanted; the network sees what comes before, too, and so remembers it."""
    name = film.name_of(arguments.source)
    width_px = GIF_WIDTH_PX if arguments.out.suffix.lower() == ".gif" else FILM_WIDTH_PX
    first_us = None
    for t_us, frame, told in frames:
        first_us = t_us if first_us is None else first_us
        seconds = (t_us - first_us) / 1e6
        if seconds >= arguments.start_s + arguments.seconds:
            return
        found = predictions(t_us, frame) if predictions is not None else None
        if seconds >= arguments.start_s:
            known = truth(t_us, frame) if truth is not None else None
            caption = f"{name} · {t_us / 1e6:.2f} s · {told}"
            picture = draw_frame(frame, classes, found, known, caption, width_px)
            yield with_legend(picture, classes) if classes else picture


def with_legend(picture: Image.Image, classes: Sequence[str]) -> Image.Image:
    legend = draw_legend(classes, picture.width)
    both = Image.new("RGB", (picture.width, picture.height + legend.height))
    both.paste(picture)
    both.paste(legend, (0, picture.height))
    return both


def write_film(out: Path, pictures: Iterable[Image.Image], fps: float) -> int:
    """Write .mp4 (H.264) or .gif, picture by picture; it appears complete, or not at all."""
    write = _write_mp4 if out.suffix.lower() == ".mp4" else _write_gif
    partial = out.with_name(f".partial_{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        count = write(partial, pictures, fps)
        if count == 0:
            raise UserError("nothing to show: the part asked for by start_s and seconds holds no frame")
        partial.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return count


def _write_mp4(path: Path, pictures: Iterable[Image.Image], fps: float) -> int:
    with imageio.get_writer(path, fps=fps, codec="libx264", quality=8, macro_block_size=2) as writer:
        count = _append(writer, pictures)
    with contextlib.suppress(RuntimeError):  # it cannot be read at all
        if count == 0 or imageio_ffmpeg.count_frames_and_secs(path)[0] == count:
            return count
    free = shutil.disk_usage(path.parent).free  # imageio does not ask how ffmpeg ended
    raise OSError(f"ffmpeg wrote less than the {count} frames. The disk has {free / 2**20:,.1f} MiB free")


def _write_gif(path: Path, pictures: Iterable[Image.Image], fps: float) -> int:
    buffer = io.BytesIO()  # imageio keeps all frames until the end anyway, and would write again when it is destroyed
    with imageio.get_writer(buffer, format="GIF", mode="I", duration=1000 / fps, loop=0) as writer:
        count = _append(writer, pictures)
    path.write_bytes(buffer.getvalue())
    return count


def _append(writer: Any, pictures: Iterable[Image.Image]) -> int:
    count = 0
    for picture in pictures:
        writer.append_data(even_size(np.asarray(picture)))
        count += 1
    return count


def even_size(picture: ndarray) -> ndarray:
    """H.264 players want an even width and height."""
    return picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        sys.exit(0 if sys.argv[1:] else 2)
    with errors_without_traceback():
        arguments = parse(sys.argv[1:])
        count = run_apart(render, arguments, arguments.source)  # an odd file may end the process that reads it
        print(f"{arguments.out}: {count} frames")


if __name__ == "__main__":
    main()
