"""Compact frame store: stacked histograms kept as gaps between their non-zero cells (`data.frame_codec`).

The file is HDF5 with `payload` (the frames, each compressed by zstd, back to back, uint8) and `frame_start` (int64
[N + 1], offsets into `payload`). Every frame carries zstd's content checksum and the offsets fletcher32, so that damage
is an error and never a wrong frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
import zstandard
from jaxtyping import Int64, UInt8
from numpy import ndarray

from config.errors import UserError
from data.frame_codec import decode, encode, most_bytes
from data.hdf5_file import Hdf5Writer
from data.hdf5_trust import HDF5_ERRORS, vector_inside
from data.pixel_map import PixelMap

FORMAT = "compact-event-frames"
VERSION = 1
_COMPRESSION_LEVEL = 1
_PAYLOAD_CHUNK = 2**15  # HDF5 rounds the file up to whole chunks
_WRITE_BYTES = 2**20  # HDF5 is slow to begin a write


class FrameStore:
    """Read access to one compact file; the handle stays open until `close`, and must not cross a fork.

    Raises UserError for a missing, foreign or damaged file.
    """

    frame_chw: tuple[int, int, int]

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise UserError(f"{path} not found. Write it with scripts/preprocess.py or scripts/compact_frames.py")
        try:
            self._file = h5py.File(path, "r", locking=False)  # data sets lie on read-only and network file systems
            form = (self._file.attrs.get("format"), self._file.attrs.get("version"))
            if form != (FORMAT, VERSION):
                raise UserError(f"{path} holds {form}, not {(FORMAT, VERSION)}. {_REMEDY}")
            channels, height, width = (int(size) for size in self._file.attrs["frame_chw"])
            self.frame_chw = channels, height, width
            file_bytes = path.stat().st_size
            self._payload = vector_inside(self._file, "payload", np.uint8, file_bytes)
            self._frame_start: Int64[ndarray, " n_and_one"] = vector_inside(
                self._file, "frame_start", np.int64, file_bytes
            )[:]
        except HDF5_ERRORS as error:
            raise UserError(f"{path} is damaged ({error}). {_REMEDY}") from error
        if len(self._frame_start) == 0 or self._frame_start[-1] != len(self._payload):
            raise UserError(f"{path} is cut short. {_REMEDY}")
        if self._frame_start[0] != 0 or (np.diff(self._frame_start) < 0).any() or not 0 < self._num_cells <= 2**28:
            raise UserError(f"{path} is damaged (its frames do not follow each other). {_REMEDY}")
        self._zstd = zstandard.ZstdDecompressor()

    def __len__(self) -> int:
        return len(self._frame_start) - 1

    @property
    def _num_cells(self) -> int:
        return int(np.prod(self.frame_chw, dtype=object)) if min(self.frame_chw) > 0 else 0

    def read(self, start: int, stop: int, out: UInt8[ndarray, "l c h w"], pixel_map: PixelMap | None = None) -> None:
        """Write frames start..stop-1 over out[: stop - start], moved by `pixel_map`; the rest of `out` is left alone.

        Each frame of `out` must be C-contiguous. Raises UserError where a frame is damaged.
        """
        assert 0 <= start <= stop <= len(self), f"frames {start}..{stop} of {len(self)}"
        assert out.dtype == np.uint8
        assert out[:1].flags.c_contiguous
        assert out.shape[1:] == self.frame_chw, f"{out.shape} for frames of {self.frame_chw}"
        offsets = self._frame_start[start : stop + 1]
        try:
            payload = memoryview(self._payload[offsets[0] : offsets[-1]])
            for frame, (begin, end) in zip(out, pairwise((offsets - offsets[0]).tolist()), strict=False):
                decode(self._decompressed(payload[begin:end]), frame, pixel_map)
        except (*HDF5_ERRORS, zstandard.ZstdError) as error:
            raise UserError(f"{self.path}: frames {start}..{stop - 1} are damaged ({error}). {_REMEDY}") from error

    def _decompressed(self, payload: memoryview) -> bytes:
        claimed = zstandard.get_frame_parameters(payload).content_size
        if claimed > most_bytes(self._num_cells):
            raise ValueError(f"a frame claims {claimed:,} bytes")
        return self._zstd.decompress(payload)

    def close(self) -> None:
        self._file.close()


_REMEDY = (
    "Delete it and run scripts/preprocess.py again, or, where RVT's frames file lies beside it, "
    "scripts/compact_frames.py"
)


class FrameStoreWriter:
    """Append frames one by one; a context manager. The file is complete, and readable, only once the block is left.

    Raises OSError where the disk is full.
    """

    def __init__(self, path: Path, frame_chw: tuple[int, int, int]) -> None:
        self._writer = Hdf5Writer(path)
        self._writer.file.attrs.update(format=FORMAT, version=VERSION, frame_chw=frame_chw)
        self._payload = self._writer.file.create_dataset(
            "payload", shape=(0,), maxshape=(None,), dtype=np.uint8, chunks=(_PAYLOAD_CHUNK,)
        )
        self._frame_start = [0]
        self._waiting: list[bytes] = []
        self._zstd = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL, write_checksum=True)
        self._frame_chw = frame_chw

    @property
    def attributes(self) -> h5py.AttributeManager:
        """What else the file tells, to be filled in before the block is left."""
        return self._writer.attributes

    def append(self, frame: UInt8[ndarray, "c h w"]) -> None:
        assert frame.dtype == np.uint8
        assert frame.shape == self._frame_chw
        compressed = self._zstd.compress(encode(frame))
        self._waiting.append(compressed)
        self._frame_start.append(self._frame_start[-1] + len(compressed))
        if self._frame_start[-1] - len(self._payload) >= _WRITE_BYTES:
            self._write_waiting()

    def _write_waiting(self) -> None:
        begin = len(self._payload)
        self._payload.resize(self._frame_start[-1], axis=0)
        self._payload[begin:] = np.frombuffer(b"".join(self._waiting), dtype=np.uint8)
        self._waiting.clear()
        self._writer.check()

    def __enter__(self) -> FrameStoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._writer:
            if error is None:
                self._write_waiting()
                starts = np.array(self._frame_start, dtype=np.int64)
                self._writer.file.create_dataset("frame_start", data=starts, fletcher32=True)


def write_frame_store(path: Path, frames: Iterable[UInt8[ndarray, "c h w"]], frame_chw: tuple[int, int, int]) -> None:
    """Write all of `frames`; an exception on the way leaves a file that FrameStore refuses."""
    with FrameStoreWriter(path, frame_chw) as writer:
        for frame in frames:
            writer.append(frame)
