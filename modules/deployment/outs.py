"""Files that boxes are written to: one writer for each suffix, all of them in memory that does not grow.

A file appears whole under its name, or not at all; only `.jsonl` and `.csv` of a recording that is followed are written
in place, line by line, so that others can read along.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from jaxtyping import Float32, Int, UInt8
from numpy import ndarray
from numpy.lib import format as npy_format

from config.errors import UserError
from data.boxes import BOX_DTYPE, score, xywh_from_xyxy
from modules.deployment.description import Description
from modules.deployment.network import Found

MOST_FPS = {".mp4": 60, ".gif": 50}  # viewers slow a GIF with more down to 10


@dataclass(frozen=True)
class Boxes:
    """Of one window, best score first."""

    t_us: int  # the window's end
    skipped: int  # windows left out before this one
    xywh: Float32[ndarray, "n 4"]  # left, top, width, height in pixels of the sensor
    class_id: Int[ndarray, " n"]
    scores: Float32[ndarray, " n"]
    frame: UInt8[ndarray, "c h w"]

    @classmethod
    def of(cls, found: Found, t_us: int, skipped: int, frame: ndarray, description: Description) -> Boxes:
        scores = score(found[:, 4], found[:, 5], description.score)
        order = np.argsort(-scores, kind="stable")
        xywh = xywh_from_xyxy(found[order, :4]) * np.array(description.sensor_xywh, np.float32)
        return cls(t_us, skipped, xywh, found[order, 6].astype(np.int64), scores[order], frame)


class Writer(Protocol):
    def add(self, boxes: Boxes) -> None: ...

    def finish(self) -> None:
        """Make the file whole."""
        ...

    def drop(self) -> None:
        """Leave nothing behind but what stands in place already."""
        ...


class _File:
    """What the writers of one plain file have in common. Raises UserError where the disk refuses."""

    def __init__(self, path: Path, in_place: bool = False) -> None:
        self.path = path
        self._now = path if in_place else path.with_name(f".partial_{path.name}")
        with self._refusals():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = self._now.open("w+b", buffering=2**16)

    def write(self, content: bytes) -> None:
        with self._refusals():
            self._file.write(content)
            if self._now == self.path:
                self._file.flush()

    def finish(self) -> None:
        with self._refusals():
            self._file.close()
            self._now.replace(self.path)

    def drop(self) -> None:
        with suppress(OSError):  # of what it still held back
            self._file.close()
        if self._now != self.path:
            self._now.unlink(missing_ok=True)

    @contextmanager
    def _refusals(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}") from error


class JsonLines(_File):
    """A line for each window, also for one without boxes."""

    def __init__(self, path: Path, description: Description, rate_hz: float, live: bool) -> None:
        super().__init__(path, in_place=live)
        self._classes = description.classes

    def add(self, boxes: Boxes) -> None:
        line: dict[str, Any] = {"t_us": boxes.t_us}
        if boxes.skipped:
            line["windows_left_out_before"] = boxes.skipped
        line["boxes"] = [
            {"x": x, "y": y, "w": w, "h": h, "class_id": i, "class": self._classes[i], "score": p}
            for (x, y, w, h), i, p in _rows(boxes)
        ]
        self.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


class Csv(_File):
    """A line for each box."""

    def __init__(self, path: Path, description: Description, rate_hz: float, live: bool) -> None:
        super().__init__(path, in_place=live)
        self._names = [_csv_text(name) for name in description.classes]
        self.write(b"t_us,x,y,w,h,class_id,class,score\n")

    def add(self, boxes: Boxes) -> None:
        rows = (f"{boxes.t_us},{x},{y},{w},{h},{i},{self._names[i]},{p}\n" for (x, y, w, h), i, p in _rows(boxes))
        self.write("".join(rows).encode())


class Npy(_File):
    """Prophesee's structured array; `class_confidence` is the score, `track_id` 0."""

    def __init__(self, path: Path, description: Description, rate_hz: float, live: bool) -> None:
        super().__init__(path)
        self._count = 0
        self._write_header()

    def _write_header(self) -> None:
        # numpy leaves room in it for the number to grow
        header = {"descr": npy_format.dtype_to_descr(BOX_DTYPE), "fortran_order": False, "shape": (self._count,)}
        with self._refusals():
            self._file.seek(0)
            npy_format.write_array_header_1_0(self._file, header)

    def add(self, boxes: Boxes) -> None:
        rows = np.zeros(len(boxes.scores), BOX_DTYPE)
        rows["t"], rows["class_id"], rows["class_confidence"] = boxes.t_us, boxes.class_id, boxes.scores
        for column, name in enumerate("xywh"):
            rows[name] = boxes.xywh[:, column]
        self._count += len(rows)
        self.write(rows.tobytes())

    def finish(self) -> None:
        self._write_header()
        super().finish()


class CocoJson(_File):
    """COCO's images, categories and annotations; each window is an image, each annotation has a score."""

    def __init__(self, path: Path, description: Description, rate_hz: float, live: bool) -> None:
        super().__init__(path)
        self._description = description
        self._images = tempfile.TemporaryFile()  # noqa: SIM115 (closed by finish or drop)
        self._num_images = self._num_boxes = 0
        categories = [{"id": i, "name": name} for i, name in enumerate(description.classes)]
        self.write(b'{"categories": ' + json.dumps(categories).encode() + b',\n"annotations": [')

    def add(self, boxes: Boxes) -> None:
        height, width = self._description.sensor_hw
        self._num_images += 1
        image = {"id": self._num_images, "t_us": boxes.t_us, "width": width, "height": height}
        with self._refusals():
            self._images.write((b"\n" if self._num_images == 1 else b",\n") + json.dumps(image).encode())
        for bbox, class_id, p in _rows(boxes):
            self._num_boxes += 1
            annotation = {
                "id": self._num_boxes, "image_id": self._num_images, "category_id": class_id,
                "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0, "score": p,
            }  # fmt: skip
            self.write((b"\n" if self._num_boxes == 1 else b",\n") + json.dumps(annotation).encode())

    def finish(self) -> None:
        self.write(b'],\n"images": [')
        with self._refusals():
            self._images.seek(0)
            shutil.copyfileobj(self._images, self._file)
        self._images.close()
        self.write(b"]}\n")
        super().finish()

    def drop(self) -> None:
        with suppress(OSError):
            self._images.close()
        super().drop()


class Film:
    """Events with the boxes over them in real time, with at most `MOST_FPS` pictures a second."""

    def __init__(self, path: Path, description: Description, rate_hz: float, live: bool) -> None:
        from modules.pictures.film_file import FilmFile  # imports matplotlib's fonts, ffmpeg: only for films

        self._every = math.ceil(rate_hz / MOST_FPS[path.suffix.lower()])
        self._film = FilmFile(path, fps=rate_hz / self._every)
        self._description, self._windows = description, 0

    def add(self, boxes: Boxes) -> None:
        from modules.pictures.frames import PictureBoxes

        wanted = range(self._windows, self._windows + boxes.skipped + 1)  # a window left out keeps its place in time
        pictures = sum(number % self._every == 0 for number in wanted)
        self._windows += len(wanted)
        if pictures:
            found = PictureBoxes(
                boxes.xywh / np.array(self._description.sensor_xywh, np.float32), boxes.class_id, boxes.scores
            )
            picture = self._film.draw(boxes.frame, self._description.classes, found, f"{boxes.t_us / 1e6:.2f} s")
            for _ in range(pictures):
                self._film.append(picture)

    def finish(self) -> None:
        self._film.close()

    def drop(self) -> None:
        self._film.drop()


WRITERS: dict[str, Callable[[Path, Description, float, bool], Writer]] = {
    ".jsonl": JsonLines, ".npy": Npy, ".json": CocoJson, ".csv": Csv, ".mp4": Film, ".gif": Film,
}  # fmt: skip


def check_outs(paths: Sequence[Path], source: Path, overwrite: bool) -> None:
    """Raises UserError for a suffix that names no kind of file, one file twice, or one that exists; and for the source,
    whatever `overwrite` says.
    """
    for number, path in enumerate(paths):
        if path.suffix.lower() not in WRITERS:
            raise UserError(f"out={path}: boxes are written to {', '.join(WRITERS)}, told apart by the suffix")
        if path.is_dir():
            raise UserError(f"out={path} is a folder: give a file")
        if path.exists() and path.samefile(source):
            raise UserError(f"out={path} is the recording itself: give another name")
        if path.exists() and not overwrite:
            raise UserError(f"out={path} exists already: give another name, or overwrite=true")
        if any(path.resolve() == other.resolve() for other in paths[:number]):
            raise UserError(f"out={path} is named twice")


def open_writers(paths: Sequence[Path], description: Description, rate_hz: float, live: bool) -> list[Writer]:
    """Raises UserError where a file cannot be written; none is left behind then."""
    writers: list[Writer] = []
    try:
        for path in paths:
            writers.append(WRITERS[path.suffix.lower()](path, description, rate_hz, live))
    except BaseException:
        end_writers(writers, whole=False)
        raise
    return writers


def end_writers(writers: Sequence[Writer], whole: bool) -> None:
    """Finish all, or drop them; raises the first UserError when each has had its turn, and left no piece."""
    refused: UserError | None = None
    for writer in writers:
        try:
            (writer.finish if whole else writer.drop)()
        except UserError as error:
            refused = refused or error
            writer.drop()
    if refused is not None:
        raise refused


def _rows(boxes: Boxes) -> list[tuple[list[float], int, float]]:
    """Left, top, width, height to a hundredth of a pixel; class; score."""
    xywh = boxes.xywh.astype(np.float64).round(2).tolist()
    return list(zip(xywh, boxes.class_id.tolist(), boxes.scores.astype(np.float64).round(4).tolist(), strict=True))


def _csv_text(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"') else text
