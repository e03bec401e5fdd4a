"""What an HDF5 file claims, checked before anything of it is used.

The metadata of HDF5's usual files carry no checksum, and libhdf5 believes them: chunks that it does not find are zeros
to it, a changed filter id loads another plug-in, whose code then runs, and links and storage may lie in other files. So
what is read is compared with what stands elsewhere: the dimensions with the caller's, the stored chunks with the
dimensions and with each other, each compressed chunk with its own header.

All functions raise ValueError, in words without the file's path.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import h5py
import numpy as np
from jaxtyping import Int64
from numpy import ndarray

# What h5py raises over damaged files, and our own findings
HDF5_ERRORS = (OSError, KeyError, ValueError, RuntimeError, TypeError, OverflowError, MemoryError, UnicodeDecodeError)
DEFLATE, SHUFFLE, FLETCHER32, BLOSC = 1, 2, 3, 32001
_HARD_LINK, _SOFT_LINK = 0, 1  # H5L_TYPE_HARD, H5L_TYPE_SOFT
_CHECKSUM_BYTES = 4
_LARGEST_FRAME = 2**28  # bytes
_BLOSC_HEADER = struct.Struct("<4B3I")  # two versions, flags, type size; bytes of content, of a block, as stored


def is_inside(group: h5py.Group, name: str) -> bool:
    """Whether something of that name stands in the group itself, asked without following links."""
    links = group.id.links
    return links.exists(name.encode()) and links.get_info(name.encode()).type == _HARD_LINK


def leads_out(group: h5py.Group, name: str) -> bool:
    """Whether a name of the group is a link into another file; links within the file do no harm."""
    kind = group.id.links.get_info(name.encode()).type
    if kind == _SOFT_LINK:
        target = group.get(name)
        return target is not None and target.file.filename != group.file.filename
    return kind != _HARD_LINK


def dataset_inside(group: h5py.Group, name: str) -> h5py.Dataset:
    """The data set of that name, which lies in this file as a whole: no link or storage leads out of it."""
    node = group
    for part in name.split("/"):
        if not isinstance(node, h5py.Group) or not node.id.links.exists(part.encode()):
            raise ValueError(f"{name!r} is not there")
        if not is_inside(node, part):
            raise ValueError(f"{name!r} is a link to another place")
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise ValueError(f"{name!r} is no data set")
    require_inside(node)
    return node


def require_inside(dataset: h5py.Dataset) -> None:
    """Nothing of it is stored in another file."""
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{dataset.name.strip('/')!r} stands in another file")


def filters_of(dataset: h5py.Dataset) -> list[int]:
    """Numbers of the filters, in the order of writing."""
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]


def vector_inside(group: h5py.Group, name: str, dtype: type[np.generic], file_bytes: int) -> h5py.Dataset:
    """A one-dimensional data set in chunks, without compression, all of whose chunks are stored."""
    vector = dataset_inside(group, name)
    filters = filters_of(vector)
    if vector.ndim != 1 or vector.dtype != np.dtype(dtype) or filters not in ([], [FLETCHER32]) or not vector.chunks:
        raise ValueError(f"{name!r} is {vector.dtype} {vector.shape} with HDF5 filters {filters}")
    if max(vector.chunks[0], len(vector)) * vector.dtype.itemsize > file_bytes:
        raise ValueError(f"{name!r} claims {len(vector):,} values, more than the file has")
    if vector.id.get_num_chunks() != -(-len(vector) // vector.chunks[0]):
        raise ValueError(f"not all of {name!r} is stored")
    return vector


@dataclass(frozen=True)
class FrameChunks:
    """The chunks of a data set of uint8 [N, ...] that holds one frame in each: all N are stored, each in a place of its
    own, and their sizes are those of the table by which they are found.
    """

    dataset: h5py.Dataset
    num_bytes: Int64[ndarray, " n"]  # as stored
    frame_bytes: int
    is_compressed: bool
    has_checksums: bool

    @classmethod
    def of(cls, dataset: h5py.Dataset, file_bytes: int) -> FrameChunks:
        if not dataset.id.get_type().equal(h5py.h5t.STD_U8LE) or dataset.ndim < 2:
            raise ValueError(f"{dataset.name.strip('/')!r} is {dataset.dtype} {dataset.shape}, not uint8 [N, C, H, W]")
        filters = filters_of(dataset)
        if filters not in _PIPELINES:
            raise ValueError(f"HDF5 filters {filters} are none of those that are read here: {_PIPELINES}")
        if dataset.chunks != (1, *dataset.shape[1:]):
            raise ValueError(f"frames of {dataset.shape[1:]} are stored in chunks of {dataset.chunks}, not one in each")
        frame_bytes = int(np.prod(dataset.shape[1:], dtype=object))
        if frame_bytes > _LARGEST_FRAME:
            raise ValueError(f"it claims frames of {frame_bytes:,} bytes")
        has_checksums, is_compressed = FLETCHER32 in filters, bool({BLOSC, DEFLATE} & set(filters))
        plain = frame_bytes + _CHECKSUM_BYTES * has_checksums
        num_bytes = _stored_chunks(dataset, file_bytes, plain, is_compressed, filters)
        return cls(dataset, num_bytes, frame_bytes, BLOSC in filters, has_checksums)

    def require(self, index: int) -> None:
        """Chunk `index` is found where a read looks for it, and is, by its own header, such a frame."""
        try:
            left_out, stored = self.dataset.id.read_direct_chunk((index,) + (0,) * (self.dataset.ndim - 1))
        except RuntimeError as error:
            raise ValueError(f"its chunk is not found: {error}") from error
        if len(stored) != self.num_bytes[index]:
            raise ValueError(f"its chunk has {len(stored)} bytes, not {self.num_bytes[index]}")
        if not self.is_compressed or left_out:
            return
        content_bytes, _, stored_bytes = _BLOSC_HEADER.unpack_from(stored)[4:]
        told = content_bytes, stored_bytes + _CHECKSUM_BYTES * self.has_checksums
        if told != (self.frame_bytes, len(stored)):
            raise ValueError(f"its chunk is of {told} bytes by its own header, not {(self.frame_bytes, len(stored))}")


_PIPELINES = ([BLOSC], [BLOSC, FLETCHER32], [FLETCHER32], [], [DEFLATE], [SHUFFLE, DEFLATE],
              [DEFLATE, FLETCHER32], [SHUFFLE, DEFLATE, FLETCHER32])  # fmt: skip


def _stored_chunks(
    dataset: h5py.Dataset, file_bytes: int, plain: int, is_compressed: bool, filters: list[int]
) -> Int64[ndarray, " n"]:
    """Bytes of each frame's chunk. `plain`: those of one that compression was left out of."""
    number = len(dataset)
    if dataset.id.get_num_chunks() != number:
        raise ValueError(f"{dataset.id.get_num_chunks()} of {number} frames are stored")
    found: list[tuple[int, ...]] = []

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        first, *others = chunk.chunk_offset
        found.append((first, max(others), chunk.byte_offset or 0, chunk.size, chunk.filter_mask))

    dataset.id.chunk_iter(note)
    table = np.array(found, dtype=np.uint64).reshape(-1, 5)
    if (table >= 2**62).any():
        raise ValueError("a chunk lies outside of the file")
    table = table[np.argsort(table[:, 0], kind="stable")].astype(np.int64)
    first, others, begin, num_bytes, left_out = table.T
    if not np.array_equal(first, np.arange(number)) or others.any():
        raise ValueError("the frames are not each stored once")
    by_place = np.argsort(begin, kind="stable")
    end = begin + num_bytes
    if number and (begin.min() <= 0 or end.max() > file_bytes or (end[by_place][:-1] > begin[by_place][1:]).any()):
        raise ValueError("chunks of frames lie over each other or outside of the file")
    compressions = sum(1 << bit for bit, filter_id in enumerate(filters) if filter_id in (BLOSC, DEFLATE))
    wrong = left_out & ~compressions | ((left_out > 0) | (not is_compressed)) & (num_bytes != plain)
    if wrong.any() or (num_bytes < _BLOSC_HEADER.size + _CHECKSUM_BYTES * (FLETCHER32 in filters)).any():
        raise ValueError(f"the chunk of frame {int(np.flatnonzero(wrong)[0]) if wrong.any() else 0} is not of its size")
    return num_bytes
