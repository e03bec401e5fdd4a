"""One sequence folder: frames, times and labelled frames by frame index.

The folder has RVT's layout; where a compact frame store lies beside the frames file, it is read instead.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import h5py
import hdf5plugin  # noqa: F401  registers the Blosc filter of the frames files
import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from config.errors import UserError
from config.schema import DatasetConfig
from data.frame_store import FrameStore
from data.hdf5_trust import HDF5_ERRORS, FrameChunks, dataset_inside
from data.labels import REMEDY, Labels, read_frame_times, read_labels
from data.layout import FRAMES_KEY, MAKE_RVT, SequenceLayout, compact_path
from data.pixel_map import FreePixelMap, PixelMap
from data.tracks import Track, tracks_of


@runtime_checkable
class FrameReader(Protocol):
    """Frames of one file, in order; the handle stays open until `close`."""

    path: Path
    frame_chw: tuple[int, int, int]

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int, out: UInt8[ndarray, "l c h w"], pixel_map: PixelMap | None = None) -> None:
        """Write frames start..stop-1 over out[: stop - start], moved by `pixel_map`.

        Each frame of `out` must be C-contiguous. Raises UserError where a frame is damaged.
        """

    def close(self) -> None: ...


class Hdf5Frames:
    """The frames file of RVT's layout. Raises UserError for a missing or damaged file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            if compact_path(path).is_file():
                raise UserError(f"{path} not found, only its compact copy. {MAKE_RVT}")
            raise UserError(
                f"{path} not found. Check dataset.path, dataset.downsample_by_factor_2 and dataset.frame_hw"
            )
        try:
            # No file locks: data sets lie on read-only and network file systems, and nobody writes here.
            self._file = h5py.File(path, "r", locking=False, rdcc_nbytes=0)
            self._data = dataset_inside(self._file, FRAMES_KEY)
            if self._data.ndim != 4:
                raise ValueError(f"{FRAMES_KEY!r} is {self._data.dtype} {self._data.shape}, not uint8 [N, C, H, W]")
            self._chunks = FrameChunks.of(self._data, path.stat().st_size)
        except HDF5_ERRORS as error:
            raise UserError(f"{path} is damaged ({error}). {REMEDY}") from error
        self.frame_chw: tuple[int, int, int] = self._data.shape[1:]
        self.has_checksums: bool = self._chunks.has_checksums

    def __len__(self) -> int:
        return len(self._data)

    def read(self, start: int, stop: int, out: UInt8[ndarray, "l c h w"], pixel_map: PixelMap | None = None) -> None:
        frame = _scratch(self.frame_chw)
        for i, target in zip(range(start, stop), out, strict=False):
            try:
                self._chunks.require(i)
                self._data.read_direct(target if pixel_map is None else frame, np.s_[i])
            except HDF5_ERRORS as error:
                raise UserError(f"{self.path}: frame {i} is damaged ({error}). {REMEDY}") from error
            if pixel_map is not None:
                pixel_map.gather(frame, target)

    def close(self) -> None:
        self._file.close()


class Sequence:
    """One sequence folder, read lazily: nothing is opened before it is asked for, and then only once.

    Raises UserError, naming the file, where one is missing or damaged.
    """

    def __init__(self, path: Path, dataset: DatasetConfig) -> None:
        self.path = path
        self._dataset = dataset
        self._layout = SequenceLayout.of(path, dataset)
        self._reader: FrameReader | None = None
        self._labels: Labels | None = None
        self._tracks: tuple[Track, ...] | None = None
        self._t_us: Int64[ndarray, " n"] | None = None

    @property
    def frame_chw(self) -> tuple[int, int, int]:
        return self._open_frames().frame_chw

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._open_frames())

    def frames(
        self,
        start: int,
        stop: int,
        out: UInt8[ndarray, "l c h w"] | None = None,
        pixel_map: PixelMap | FreePixelMap | None = None,
    ) -> UInt8[ndarray, "l c h w"]:
        """Frames start..stop-1, moved by `pixel_map`, written to `out` if given; empty past the end of the sequence.

        The frames of `out` must each be contiguous; the whole need not be.
        """
        reader = self._open_frames()
        if out is None:
            out = np.empty((stop - start, *reader.frame_chw), dtype=np.uint8)
        if out.shape[1:] != reader.frame_chw:
            raise UserError(
                f"{reader.path}: frames are {reader.frame_chw}, but the config says {out.shape[1:]} (channels, height, "
                "width). Check dataset.resolution_hw, dataset.downsample_by_factor_2, frame_hw and representation"
            )
        present = max(min(stop, len(reader)) - start, 0)
        reader.read(start, start + present, out, pixel_map if isinstance(pixel_map, PixelMap) else None)
        if isinstance(pixel_map, FreePixelMap):
            move_frames(out[:present], pixel_map)
        out[present:] = 0
        return out

    def t_us(self, start: int, stop: int) -> Int64[ndarray, " l"]:
        """End of each frame's window; -1 past the end of the sequence."""
        t_us = self._all_t_us()[start:stop]
        return np.pad(t_us, (0, stop - start - len(t_us)), constant_values=-1)

    def labels(self, start: int, stop: int) -> Labels:
        """Labelled frames among start..stop-1, in pixels of the loaded frame, clamped to it, without flat boxes."""
        labels = self._all_labels()
        first, last = np.searchsorted(labels.frames, (start, stop))
        boxes = slice(*np.searchsorted(labels.box_image, (first, last)))
        return Labels(
            labels.frames[first:last] - start,
            labels.boxes[boxes].copy(),  # augmentation works in place
            labels.box_image[boxes] - first,
        )

    def tracks(self) -> tuple[Track, ...]:
        """What its labels follow from frame to frame; none where they have no track ids."""
        if self._tracks is None:
            self._tracks = tuple(tracks_of(self._all_labels()))
        return self._tracks

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _open_frames(self) -> FrameReader:
        if self._reader is None:
            compact = self._layout.compact_frames
            reader = FrameStore(compact) if compact.is_file() else Hdf5Frames(self._layout.frames)
            num_windows = len(self._all_t_us())
            if len(reader) != num_windows:
                reader.close()
                raise UserError(
                    f"{reader.path}: {len(reader)} frames, but {self._layout.frame_times.name} has {num_windows}. "
                    f"{REMEDY}"
                )
            self._reader = reader
        return self._reader

    def _all_labels(self) -> Labels:
        if self._labels is None:
            self._labels = read_labels(self.path, self._dataset)
        return self._labels

    def _all_t_us(self) -> Int64[ndarray, " n"]:
        if self._t_us is None:
            self._t_us = read_frame_times(self._layout)
        return self._t_us


def move_frames(frames: UInt8[ndarray, "l c h w"], pixel_map: PixelMap | FreePixelMap) -> None:
    """Move frames that have been read, in place."""
    for frame in frames:
        unmoved = _scratch(frame.shape)
        unmoved[:] = frame
        pixel_map.gather(unmoved, frame)


@lru_cache(maxsize=1)
def _scratch(frame_chw: tuple[int, int, int]) -> UInt8[ndarray, "c h w"]:
    """Memory for a frame on its way; always the same, since fresh memory costs more than a frame's worth of copying."""
    return np.empty(frame_chw, dtype=np.uint8)
