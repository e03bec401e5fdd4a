"""A film file, picture by picture: .mp4 (H.264) or .gif."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
from numpy import ndarray
from PIL import Image

from config.errors import UserError
from modules.pictures.frames import PictureBoxes, draw_frame, draw_legend

FILM_WIDTH_PX, GIF_WIDTH_PX = 1280, 640


class FilmFile:
    """It appears complete, or not at all. Raises UserError where the disk refuses."""

    def __init__(self, path: Path, fps: float, has_truth: bool = False) -> None:
        """`has_truth`: the legend names ground truth."""
        self.path, self._fps, self._has_truth, self._count = path, fps, has_truth, 0
        self._partial = path.with_name(f".partial_{path.name}")
        self._is_gif = path.suffix.lower() == ".gif"
        self._gif: list[Image.Image] = []  # its colours are chosen at the end
        self._mp4: Any = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._partial.touch()
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error}") from error
        if not self._is_gif:
            self._mp4 = imageio.get_writer(self._partial, fps=fps, codec="libx264", quality=8, macro_block_size=2)

    @property
    def width_px(self) -> int:
        return GIF_WIDTH_PX if self._is_gif else FILM_WIDTH_PX

    def draw(
        self,
        frame: ndarray,
        classes: Sequence[str],
        found: PictureBoxes | None,
        caption: str,
        truth: PictureBoxes | None = None,
    ) -> Image.Image:
        """A frame as wide as this film is, with a legend below where there are classes."""
        picture = draw_frame(frame, classes, found, truth, caption, self.width_px)
        if not classes:
            return picture
        legend = draw_legend(classes, picture.width, self._has_truth)
        both = Image.new("RGB", (picture.width, picture.height + legend.height))
        both.paste(picture)
        both.paste(legend, (0, picture.height))
        return both

    def append(self, picture: Image.Image) -> None:
        self._count += 1
        if self._is_gif:
            self._gif.append(picture)
            return
        try:
            self._mp4.append_data(even_size(np.asarray(picture)))
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error}") from error

    def close(self) -> int:
        """Make the file whole; returns the number of pictures. Without any there is no file."""
        try:
            if not self._is_gif:
                self._mp4.close()
            if self._count == 0:
                return 0
            if self._is_gif:
                self._save_gif()
            else:
                self._check_length()
            self._partial.replace(self.path)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error}") from error
        finally:
            self._remove()
        return self._count

    def _save_gif(self) -> None:
        """A GIF counts in 10 ms: rounded one by one, 40 pictures a second would become 50."""
        ends_ms = [round(100 * number / self._fps) * 10 for number in range(self._count + 1)]
        durations = np.diff(ends_ms).tolist()
        first, *others = self._gif
        first.save(self._partial, "GIF", save_all=True, append_images=others, duration=durations, loop=0)

    def drop(self) -> None:
        """Leave nothing behind."""
        if self._mp4 is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._mp4.close()
        self._remove()

    def _check_length(self) -> None:
        with contextlib.suppress(RuntimeError):  # it cannot be read at all
            if imageio_ffmpeg.count_frames_and_secs(self._partial)[0] == self._count:
                return
        free = shutil.disk_usage(self.path.parent).free  # imageio does not ask how ffmpeg ended
        told = f"ffmpeg wrote less than the {self._count} frames. The disk has {free / 2**20:,.1f} MiB free"
        raise OSError(told)

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self._partial.unlink()


def even_size(picture: ndarray) -> ndarray:
    """H.264 players want an even width and height."""
    return picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
