"""Labelled objects of other sequences, pasted along their tracks: over a stream as long as they are seen there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from math import ceil, floor

import numpy as np
from jaxtyping import Float32, Float64, Int64, Real, UInt8
from numpy import ndarray
from numpy.random import Generator

from config.errors import UserError
from config.schema import CopyPasteConfig, StreamCopyPasteConfig
from data.index import SplitIndex
from data.labels import Labels
from data.plan import ChunkRead
from data.sequence import Sequence
from data.tracks import LONGEST_GAP, Track

_PASTES = 2  # sets these draws apart from those of the move and of the events with the same seed
_TRIES = 5  # sequences that are asked for a track of a class
_LOOKED_AT = 50  # sequences with a class, for any track of it
_HIDDEN = 0.65  # share of a box from which it is hidden under a paste, or comes along with one


@dataclass(frozen=True)
class Paste:
    """An object of `source`, whose frame f + offset lies over frame f, for first <= f <= last."""

    source: int
    track: Track
    offset: int
    first: int
    last: int


class CopyPaste:
    """Draws what is pasted into a chunk, and pastes it.

    Equal seeds give equal draws, and the chunks of a stream have one seed: an object goes on along its track from chunk
    to chunk, at its own places. Within every `frames` frames of a stream pastes begin with the probability `prob`, for
    at most so many frames each. Into a chunk that stands alone they are laid so that the last frame, which has labels,
    shows them.

    A class is drawn with a weight of (its boxes in the split) ** -rare, then a sequence that has it, then a track of it
    with a weight of (mean area) ** -small. Another class takes the place of one of which no track is found.
    """

    def __init__(self, index: SplitIndex, sequence: Callable[[int], Sequence]) -> None:
        boxes = np.zeros((len(index), index.class_counts.shape[1]), np.int64)
        np.add.at(boxes, index.label_sequence, index.class_counts)
        self._boxes_of_class = boxes.sum(axis=0)
        self._classes = np.flatnonzero(self._boxes_of_class)
        self._sequences_of_class = [np.flatnonzero(column) for column in boxes.T]
        self._sequence = sequence
        self._split = index.split

    def require_tracks(self) -> list[int]:
        """Classes that have boxes, none of which can be followed from frame to frame: they will not be pasted.

        Raises UserError where that is all of them.
        """
        tracked = cache(lambda number: {track.class_id for track in self._sequence(number).tracks()})
        missing = [
            class_id
            for class_id in self._classes.tolist()
            if not any(class_id in tracked(number) for number in _some(self._sequences_of_class[class_id]))
        ]
        if len(missing) == len(self._classes):
            raise UserError(
                f"{self._split}: copy_paste follows objects by track_id, and no box is found again by it (an id is "
                f"needed that one object alone has, in labels at most {LONGEST_GAP} frames apart). Set "
                "dataset.data_augmentation.{stream,random}.copy_paste.prob=0"
            )
        return missing

    def draw(self, read: ChunkRead, config: CopyPasteConfig) -> list[Paste]:
        """What is seen in a chunk, in the order in which it is laid over it."""
        assert read.augmentation_seed is not None
        if not config.prob:
            return []
        seed = (*read.augmentation_seed, _PASTES)
        if not isinstance(config, StreamCopyPasteConfig):
            return list(self._alone(np.random.default_rng(seed), config, read.stop - 1))
        every = config.frames
        pastes = []
        for period in range(max(read.start // every - 1, 0), (read.stop - 1) // every + 1):
            pastes += self._beginning(np.random.default_rng((*seed, period)), config, period * every)
        return [paste for paste in pastes if paste.first < read.stop and paste.last >= read.start]

    def lay(self, pastes: list[Paste], read: ChunkRead, frames: UInt8[ndarray, "l c h w"], labels: Labels) -> Labels:
        """Write the pastes over the chunk's frames, in place, and return its labels with theirs.

        What a paste hides loses its box; what lies within its box in the source comes along, with its own. Labelled
        frames stay those that they were.
        """
        for paste in pastes:
            first, last = max(paste.first, read.start), min(paste.last, read.start + len(frames) - 1)
            if last < first:
                continue
            source, seen = self._sequence(paste.source), np.empty((1, *frames.shape[1:]), np.uint8)
            for frame in range(first, last + 1):
                box = paste.track.box_at(frame + paste.offset)
                assert box is not None, "a paste lasts no longer than its track"
                source.frames(frame + paste.offset, frame + paste.offset + 1, seen)
                rows, columns = _pixels(box, frames.shape[2:])
                frames[frame - read.start, :, rows, columns] = seen[0, :, rows, columns]
                if len(at := np.flatnonzero(labels.frames == frame - read.start)):
                    labels = _with(labels, int(at[0]), box, _inside(source.tracks(), frame + paste.offset, box))
        return labels

    def _beginning(self, rng: Generator, config: StreamCopyPasteConfig, begin: int) -> Iterator[Paste]:
        """Those that begin in a stretch of a stream, with the tracks' own beginnings."""
        for source, track in self._drawn(rng, config):
            first = begin + int(rng.integers(config.frames))
            last = min(first + track.last - track.first, first + config.frames - 1)
            yield Paste(source, track, track.first - first, first, last)

    def _alone(self, rng: Generator, config: CopyPasteConfig, frame: int) -> Iterator[Paste]:
        for source, track in self._drawn(rng, config):
            offset = int(rng.integers(track.first, track.last + 1)) - frame
            yield Paste(source, track, offset, track.first - offset, track.last - offset)

    def _drawn(self, rng: Generator, config: CopyPasteConfig) -> Iterator[tuple[int, Track]]:
        if rng.random() >= config.prob:
            return
        for _ in range(int(rng.integers(1, config.max_number + 1))):
            classes = self._classes
            while len(classes):
                class_id = int(rng.choice(classes, p=_shares(self._boxes_of_class[classes], config.rare)))
                if (found := self._object_of(class_id, rng, config.small)) is not None:
                    yield found
                    break
                classes = classes[classes != class_id]

    def _object_of(self, class_id: int, rng: Generator, small: float) -> tuple[int, Track] | None:
        for _ in range(_TRIES):
            source = int(rng.choice(self._sequences_of_class[class_id]))
            tracks = [track for track in self._sequence(source).tracks() if track.class_id == class_id]
            if tracks:
                shares = _shares(np.array([track.mean_area for track in tracks]), small)
                return source, tracks[int(rng.choice(len(tracks), p=shares))]
        return None


def _some(sequences: Int64[ndarray, " n"]) -> list[int]:
    """At most `_LOOKED_AT` of them, from all over."""
    return sequences[:: max(len(sequences) // _LOOKED_AT, 1)][:_LOOKED_AT].tolist()


def _shares(values: Real[ndarray, " n"], exponent: float) -> Float64[ndarray, " n"]:
    """Proportional to values ** -exponent; the least one's weight is 1, so that no exponent is too large."""
    weight = (values / values.min()) ** -exponent
    return weight / weight.sum()


def _pixels(box: Float32[ndarray, "4"], frame_hw: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns that a box (x, y, w, h) touches."""
    x, y, w, h = box.tolist()
    rows = slice(max(floor(y), 0), min(ceil(y + h), frame_hw[0]))
    return rows, slice(max(floor(x), 0), min(ceil(x + w), frame_hw[1]))


def _inside(tracks: tuple[Track, ...], frame: int, box: Float32[ndarray, "4"]) -> Float32[ndarray, "n 5"]:
    """Class and box of all that is seen within a box of a frame, cut to it; the box's own object among them."""
    found = [(track.class_id, *other) for track in tracks if (other := track.box_at(frame)) is not None]
    boxes = np.array(found, np.float32).reshape(-1, 5)
    boxes = boxes[_covered(boxes[:, 1:], box) >= _HIDDEN]
    end = np.minimum(boxes[:, 1:3] + boxes[:, 3:], box[:2] + box[2:])
    boxes[:, 1:3] = np.maximum(boxes[:, 1:3], box[:2])
    boxes[:, 3:] = end - boxes[:, 1:3]
    return boxes


def _covered(boxes: Float32[ndarray, "n 4"], cover: Float32[ndarray, "4"]) -> Float32[ndarray, " n"]:
    """Share of each box's area that lies in `cover`."""
    near, far = np.maximum(boxes[:, :2], cover[:2]), np.minimum(boxes[:, :2] + boxes[:, 2:], cover[:2] + cover[2:])
    return np.maximum(far - near, 0).prod(axis=1) / boxes[:, 2:].prod(axis=1)


def _with(labels: Labels, image: int, cover: Float32[ndarray, "4"], added: Float32[ndarray, "n 5"]) -> Labels:
    """Labels with more boxes in one labelled frame, and without those of it that are hidden now."""
    is_hidden = (labels.box_image == image) & (_covered(labels.boxes[:, 1:], cover) >= _HIDDEN)
    boxes = np.concatenate([labels.boxes[~is_hidden], added])
    box_image: Int64[ndarray, " n"] = np.append(labels.box_image[~is_hidden], np.full(len(added), image))
    order = np.argsort(box_image, kind="stable")
    return Labels(labels.frames, boxes[order], box_image[order])
