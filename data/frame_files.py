"""Writing the files that hold a sequence's frames: the frames file of RVT's layout, the compact store, or both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import h5py
import hdf5plugin
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from config.errors import UserError
from data.frame_store import FrameStore, FrameStoreWriter
from data.hdf5_file import Hdf5Writer
from data.hdf5_trust import HDF5_ERRORS
from data.layout import ATTRIBUTES, FRAMES_KEY, FrameFiles, SequenceLayout
from data.sequence import FrameReader, Hdf5Frames
from data.workplace import not_written, workplace


@runtime_checkable
class FrameWriter(Protocol):
    """Appends frames to one file."""

    @property
    def attributes(self) -> h5py.AttributeManager:
        """What else the file tells, to be filled in before it is closed."""
        ...

    def append(self, frame: UInt8[ndarray, "c h w"]) -> None: ...


class FramesFileWriter(Hdf5Writer):
    """RVT's frames file: one frame a chunk, compressed as RVT does, with checksums besides. A context manager.

    Raises OSError where the disk is full.
    """

    def __init__(self, path: Path, frame_chw: tuple[int, int, int]) -> None:
        super().__init__(path)
        self._data = self.file.create_dataset(
            FRAMES_KEY,
            shape=(0, *frame_chw),
            maxshape=(None, *frame_chw),
            chunks=(1, *frame_chw),
            dtype=np.uint8,
            fletcher32=True,
            **hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE),
        )

    def append(self, frame: UInt8[ndarray, "c h w"]) -> None:
        assert frame.dtype == np.uint8
        assert frame.shape == self._data.shape[1:]
        self._data.resize(len(self._data) + 1, axis=0)
        self._data[-1] = frame
        self.check()


@contextlib.contextmanager
def frame_writers(
    layout: SequenceLayout, files: FrameFiles, frame_chw: tuple[int, int, int]
) -> Generator[list[FrameWriter]]:
    """A writer of each file that `files` asks for."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                (FrameStoreWriter if path == layout.compact_frames else FramesFileWriter)(path, frame_chw)
            )
            for path in layout.frame_files(files)
        ]


def told_by(path: Path) -> Mapping[str, Any]:
    """What a file of frames tells of how it was made; nothing where RVT's own script, or compact_frames.py, made it."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return {key: file.attrs[key] for key in ATTRIBUTES if key in file.attrs}
    except HDF5_ERRORS as error:
        raise UserError(f"{path} is damaged ({error}). Delete {path.parents[2]} and start again") from error


def add_frame_files(
    layout: SequenceLayout, on_frame: Callable[[], None] = lambda: None, *, files: FrameFiles, wait: bool = False
) -> int:
    """Write those that `files` asks for and that are missing, from the one that is there; returns how many.

    A compact store of another length than the frames file beside it counts as missing. Raises UserError where a file
    fails; then nothing is left of the new one. BusyError where another process is writing it, whose end it waits for
    with `wait`.
    """
    return sum(
        _convert(source, target, layout, on_frame, wait=wait)
        for target, source in ((layout.compact_frames, layout.frames), (layout.frames, layout.compact_frames))
        if target in layout.frame_files(files) and source.is_file()
    )


def _convert(
    source_path: Path, target: Path, layout: SequenceLayout, on_frame: Callable[[], None], *, wait: bool
) -> bool:
    with contextlib.closing(open_frames(source_path, layout)) as source:
        try:
            if _is_there(target, layout, len(source)):
                return False
            with workplace(target.with_name(f".partial_{target.stem}"), target, wait=wait) as folder:
                if _is_there(target, layout, len(source)):
                    return False
                partial = SequenceLayout(folder, layout.ev_repr_name, layout.frames_name)
                partial.representation.mkdir(parents=True)
                _copy(source, partial, "compact" if target == layout.compact_frames else "rvt", on_frame)
                (partial.representation / target.name).replace(target)
            return True
        except OSError as error:
            raise not_written(target, error) from error


def _copy(source: FrameReader, partial: SequenceLayout, files: FrameFiles, on_frame: Callable[[], None]) -> None:
    frame = np.empty((1, *source.frame_chw), np.uint8)
    with frame_writers(partial, files, source.frame_chw) as (writer,):
        for index in range(len(source)):
            source.read(index, index + 1, frame)
            writer.append(frame[0])
            on_frame()
        writer.attributes.update(told_by(source.path))


def open_frames(path: Path, layout: SequenceLayout) -> FrameReader:
    """One of a sequence's files of frames. Raises UserError where it is missing or damaged."""
    return FrameStore(path) if path == layout.compact_frames else Hdf5Frames(path)


def _is_there(path: Path, layout: SequenceLayout, length: int) -> bool:
    if path == layout.frames:  # an original, of which the store is a copy
        return path.is_file()
    try:
        store = FrameStore(path)
    except UserError:
        return False
    store.close()
    return len(store) == length
