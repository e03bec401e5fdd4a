"""A film of a sequence or a raw recording: events, and boxes over them where there are any.

    python scripts/render.py SOURCE OUT.mp4|OUT.gif [predictions=FOLDER | checkpoint=FILE] [dataset=NAME ...] [OPTIONS]

    python scripts/render.py VALIDATION_FOLDER OUT_FOLDER worst=20 [dataset.path=FOLDER] [threshold=0.25]

SOURCE is a preprocessed sequence's folder or a recording (docs/formats.md). Boxes come from the validation
folder `predictions`, or from the network of `checkpoint`, which runs along; labels, if there are any, are dashed lines.
The data set is the one of the predictions or the checkpoint; dataset=NAME, with any of its keys, names another
(--config-dir FOLDER: one of your own). Most recordings need none of it.

worst=N: pictures of the N frames of a validation with the most missed boxes and false predictions.

Options: threshold=0.25 (least score), start_s=0, seconds=... (how much of it), speed=1 (0.5: slow motion).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from pydantic import ValidationError

from config.command_line import errors_without_traceback
from config.errors import UserError
from config.loading import load_dataset_config
from config.schema import DatasetConfig
from config.yaml_files import read_yaml
from data.layout import REPRESENTATIONS, is_sequence_folder
from modules.deployment.checkpoint import config_of_checkpoint, load_detector
from modules.evaluation.results import read_results
from modules.pictures import film
from modules.pictures.film_file import FilmFile
from modules.pictures.worst import draw_worst, worst_frames
from scripts.parallel import run_apart
from scripts.words import Words, help_where_asked


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
    words = Words(arguments)
    if len(words.paths) != 2:
        raise UserError("give SOURCE and OUT.mp4 or OUT.gif; --help tells more")
    source, out = words.paths
    if out.suffix.lower() not in (".mp4", ".gif"):
        raise UserError(f"{out}: a film is .mp4 or .gif")
    if "predictions" in words and "checkpoint" in words:
        raise UserError("predictions and checkpoint contradict each other: leave one of them out")
    parsed = Arguments(
        source=source,
        out=out,
        predictions=words.path("predictions"),
        checkpoint=words.path("checkpoint"),
        threshold=words.number("threshold", 0.25, 0, 1),
        start_s=words.number("start_s", 0.0, 0, float("inf")),
        seconds=words.number("seconds", float("inf"), 0, float("inf")),
        speed=words.number("speed", 1.0, 0, 1000),
        overrides=words.overrides,
    )
    if parsed.speed == 0:
        raise UserError("speed must be larger than 0: 1 is real time, 0.5 half as fast")
    return parsed


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

    film_file = FilmFile(arguments.out, 1000 / window_ms * arguments.speed, has_truth=truth is not None)
    return write_film(film_file, draw(film_file, arguments, frames, predictions, truth, classes))


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


def draw(
    film_file: FilmFile,
    arguments: Arguments,
    frames: Iterable[film.TimedFrame],
    predictions: film.BoxesAt | None,
    truth: film.BoxesAt | None,
    classes: Sequence[str],
) -> Iterator[Image.Image]:
    """Pictures of the part that is wanted; the network sees what comes before, too, and so remembers it."""
    name = film.name_of(arguments.source)
    first_us = None
    for t_us, frame, told in frames:
        first_us = t_us if first_us is None else first_us
        seconds = (t_us - first_us) / 1e6
        if seconds >= arguments.start_s + arguments.seconds:
            return
        found = predictions(t_us, frame) if predictions is not None else None
        if seconds >= arguments.start_s:
            known = truth(t_us, frame) if truth is not None else None
            yield film_file.draw(frame, classes, found, f"{name} · {t_us / 1e6:.2f} s · {told}", known)


def write_film(film_file: FilmFile, pictures: Iterable[Image.Image]) -> int:
    """Write the pictures, or nothing where one fails; returns their number."""
    try:
        for picture in pictures:
            film_file.append(picture)
    except BaseException:
        film_file.drop()
        raise
    count = film_file.close()
    if count == 0:
        raise UserError("nothing to show: the part asked for by start_s and seconds holds no frame")
    return count


def render_worst(arguments: Sequence[str]) -> int:
    """Write a picture of each of the worst frames of a validation into a new folder; returns their number."""
    keys = ("worst=", "threshold=", "dataset.path=")
    paths = [word for word in arguments if not word.startswith(keys)]  # a validation's folder has = in its name
    words = Words([word for word in arguments if word.startswith(keys)])
    if len(paths) != 2:
        told = "give VALIDATION_FOLDER and OUT_FOLDER with worst=N, and of options threshold and dataset.path"
        raise UserError(f"{told}; there are: {' '.join(paths)}")
    folder, out = map(Path, paths)
    count, threshold = words.whole_number("worst", 1, 10**6), words.number("threshold", 0.25, 0, 1)
    assert count is not None, "worst= chose this way"
    dataset = dataset_of_validation(folder)
    if data := words.path("dataset.path"):
        dataset = dataset.model_copy(update={"path": data})
    worst = worst_frames(folder, count, threshold)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already, and not empty. Give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    for name, picture in draw_worst(worst, dataset, read_results(folder)["protocol"]["split"]):
        picture.save(out / name)
    return len(worst)


def main() -> None:
    help_where_asked(__doc__)
    with errors_without_traceback():
        if any(word.startswith("worst=") for word in sys.argv[1:]):
            print(f"{render_worst(sys.argv[1:])} pictures")
            return
        arguments = parse(sys.argv[1:])
        count = run_apart(render, arguments, arguments.source)  # an odd file may end the process that reads it
        print(f"{arguments.out}: {count} frames")


if __name__ == "__main__":
    main()
