"""Plans: which chunk every lane of the batch reads at every step.

A lane is one row of the batch with one hidden state. A plan is a pure function of (seed, epoch, step, rank, world
size): workers change speed and nothing else, and a run resumes at step k by asking for step k.

Lanes are numbered over all ranks; rank r has lanes r, r + world_size, ...: its row i is lane i * world_size + r.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Real
from numpy import ndarray

# What random numbers are drawn for; part of their seed, so that no two draws share one.
STREAM_ORDER, RANDOM_ORDER, FILLER_ORDER, STREAM_AUGMENTATION, RANDOM_AUGMENTATION = range(5)


class ChunkRead(NamedTuple):
    """What one row of a batch reads: frames start..stop-1 of a sequence, with empty frames up to the chunk's length."""

    sequence: int
    start: int
    stop: int
    is_first: bool  # a stream starts here, or the chunk stands alone
    row: int  # row of the rank's hidden state
    is_random: bool  # a chunk that stands alone
    augmentation_seed: tuple[int, ...] | None  # None: no augmentation; constant while a stream lasts


class TrainingPlan:
    """Training: `num_stream_rows` rows per rank follow streams, `num_random_rows` more read chunks that stand alone.

    Streams. Each epoch reads every stream once, from its start to its end. Which lengths share a lane is settled once,
    longest first to the emptiest lane; which streams of a length these are, their order and their lane are drawn anew
    each epoch. So all epochs have the same number of steps: the load of the fullest lane. Lanes that run dry before it
    read streams of a second shuffle, under their own augmentation, cut where the epoch ends: batches are always full,
    and a set smaller than the batch works. Nothing is read twice where the lanes come out even.

    With `repeats` an epoch is as long as all streams times their repeats, shared out among the lanes. It reads a stream
    of 2.3 two times or, by a draw anew in each epoch, three; a lane that the draw makes longer than the epoch is cut
    where that ends.

    Random chunks. Where an epoch has room for all of them it reads each at least once (what is left of the last
    batch starts another shuffle). Where it has not (mixed sampling), the shuffle goes on in the next epoch. With
    `weights` chunks are drawn with replacement.

    Args:
        streams: rows (sequence, start, stop), in frames.
        chunks: rows (sequence, start) of the chunks that stand alone.
        weights: of `chunks`, any positive scale; None draws without replacement.
        repeats: mean number of times that an epoch reads each stream, at least 1; None: once.
        length: frames per chunk, L.
    """

    def __init__(
        self,
        streams: Int64[ndarray, "s 3"],
        chunks: Int64[ndarray, "c 2"],
        *,
        length: int,
        num_stream_rows: int,
        num_random_rows: int,
        seed: int,
        world_size: int = 1,
        weights: Real[ndarray, " c"] | None = None,
        repeats: Real[ndarray, " s"] | None = None,
    ) -> None:
        assert num_stream_rows + num_random_rows > 0
        assert len(streams) > 0 or num_stream_rows == 0
        assert len(chunks) > 0 or num_random_rows == 0
        self._streams, self._chunks, self._weights, self._repeats = streams, chunks, weights, repeats
        self._length, self._seed, self._world_size = length, seed, world_size
        self._num_stream_rows, self._num_random_rows = num_stream_rows, num_random_rows
        self._num_random_lanes = num_random_rows * world_size
        if num_stream_rows:
            self._num_steps = num_chunks(streams, length)
            self._longest_first = np.argsort(-self._num_steps, kind="stable")
            self._lane_of_rank, load = _pack(self._num_steps[self._longest_first], num_stream_rows * world_size)
            self.steps_per_epoch = int(load.max())
            if repeats is not None:
                mean_load = (repeats * self._num_steps).sum() / (num_stream_rows * world_size)
                self.steps_per_epoch = max(self.steps_per_epoch, math.ceil(mean_load))
        else:
            self.steps_per_epoch = -(-len(chunks) // self._num_random_lanes)
        self._lanes = lru_cache(maxsize=2)(self._draw_lanes)
        self._random_order = lru_cache(maxsize=2)(self._draw_random_order)

    @property
    def signature(self) -> str:
        """Equal for plans that give the same batches to the same ranks; a resumed run compares it."""
        digest = hashlib.sha256(repr((self._seed, self._world_size, self._length)).encode())
        digest.update(repr((self._num_stream_rows, self._num_random_rows)).encode())
        for array in (self._streams, self._chunks, self._weights):
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
        if self._repeats is not None:
            digest.update(np.ascontiguousarray(self._repeats).tobytes())
        return digest.hexdigest()

    def batch(self, epoch: int, step: int, rank: int = 0) -> list[ChunkRead]:
        """The rows of `rank` at `step` (0..steps_per_epoch-1) of `epoch`."""
        assert 0 <= step < self.steps_per_epoch, f"step {step} of {self.steps_per_epoch}"
        stream_rows = [self._stream_read(epoch, step, rank, row) for row in range(self._num_stream_rows)]
        return stream_rows + [self._random_read(epoch, step, rank, row) for row in range(self._num_random_rows)]

    def _stream_read(self, epoch: int, step: int, rank: int, row: int) -> ChunkRead:
        lane = row * self._world_size + rank
        queue, first_steps = self._lanes(epoch)[lane]
        turn = int(np.searchsorted(first_steps, step, side="right")) - 1
        sequence, begin, end = self._streams[queue[turn]].tolist()
        start = begin + (step - int(first_steps[turn])) * self._length
        seed = (self._seed, STREAM_AUGMENTATION, epoch, lane, int(first_steps[turn]))
        return ChunkRead(sequence, start, min(start + self._length, end), start == begin, row, False, seed)

    def _random_read(self, epoch: int, step: int, rank: int, row: int) -> ChunkRead:
        lane = row * self._world_size + rank
        chunk = self._random_order(epoch)[step * self._num_random_lanes + lane]
        sequence, start = self._chunks[chunk].tolist()
        seed = (self._seed, RANDOM_AUGMENTATION, epoch, lane, step)
        return ChunkRead(sequence, start, start + self._length, True, self._num_stream_rows + row, True, seed)

    def _draw_lanes(self, epoch: int) -> list[tuple[Int64[ndarray, " n"], Int64[ndarray, " n"]]]:
        """Per stream lane its streams in order and the step at which each begins."""
        rng = np.random.default_rng((self._seed, STREAM_ORDER, epoch))
        num_lanes = self._num_stream_rows * self._world_size
        longest_first, lane_of_rank = self._longest_first, self._lane_of_rank
        if self._repeats is not None:
            copies = np.floor(self._repeats + rng.random(len(self._repeats))).astype(np.int64)
            longest_first = np.repeat(longest_first, copies[longest_first])
            lane_of_rank, _ = _pack(self._num_steps[longest_first], num_lanes)
        lengths = self._num_steps[longest_first]
        stream = longest_first[np.lexsort((rng.random(len(lengths)), -lengths))]
        lane = rng.permutation(num_lanes)[lane_of_rank]
        by_lane = np.lexsort((rng.random(len(lane)), lane))
        queues = np.split(stream[by_lane], np.searchsorted(lane[by_lane], np.arange(1, num_lanes)))
        filler = _EndlessShuffle(len(self._streams), (self._seed, FILLER_ORDER, epoch))
        return [self._fill(queue.tolist(), filler) for queue in queues]

    def _fill(self, queue: list[int], filler: _EndlessShuffle) -> tuple[Int64[ndarray, " n"], Int64[ndarray, " n"]]:
        load = int(self._num_steps[queue].sum())
        while load < self.steps_per_epoch:
            queue.append(filler.next())
            load += int(self._num_steps[queue[-1]])
        first_steps = np.cumsum(self._num_steps[queue]) - self._num_steps[queue]
        return np.array(queue), first_steps

    def _draw_random_order(self, epoch: int) -> Int64[ndarray, " reads"]:
        """The chunk that each random lane reads at each step of an epoch: step * lanes + lane."""
        num_reads, num_all = self.steps_per_epoch * self._num_random_lanes, len(self._chunks)
        if self._weights is not None:
            rng = np.random.default_rng((self._seed, RANDOM_ORDER, epoch))
            return rng.choice(num_all, size=num_reads, p=self._weights / self._weights.sum())
        goes_on = num_reads < num_all
        begin = epoch * num_reads if goes_on else 0
        passes = range(begin // num_all, (begin + num_reads - 1) // num_all + 1)
        shuffles = [
            np.random.default_rng((self._seed, RANDOM_ORDER, 0 if goes_on else epoch, index)).permutation(num_all)
            for index in passes
        ]
        begin -= passes.start * num_all
        return np.concatenate(shuffles)[begin : begin + num_reads]


@dataclass(frozen=True)
class EvaluationPlan:
    """Evaluation: every frame of `streams` (rows: sequence, start, stop) exactly once, without augmentation.

    Lanes that have run out leave the batch; ranks may have different numbers of steps, even none.
    """

    streams: Int64[ndarray, "s 3"]
    length: int
    num_rows: int
    world_size: int = 1

    def __post_init__(self) -> None:
        lengths = num_chunks(self.streams, self.length)
        longest_first = np.argsort(-lengths, kind="stable")
        num_lanes = self.num_rows * self.world_size
        lane, _ = _pack(lengths[longest_first], num_lanes)
        by_lane = np.argsort(lane, kind="stable")
        queues = np.split(longest_first[by_lane], np.searchsorted(lane[by_lane], np.arange(1, num_lanes)))
        lanes = [(queue, np.cumsum(lengths[queue])) for queue in queues]
        object.__setattr__(self, "_lanes", lanes)

    def num_steps(self, rank: int = 0) -> int:
        return max(int(last[-1]) if len(last) else 0 for _, last in self._lanes[rank :: self.world_size])

    def batch(self, step: int, rank: int = 0) -> list[ChunkRead]:
        """The rows of `rank` at `step`; lanes that have run out are missing."""
        reads = []
        for row, (queue, stop_steps) in enumerate(self._lanes[rank :: self.world_size]):
            turn = int(np.searchsorted(stop_steps, step, side="right"))
            if turn < len(queue):
                sequence, begin, end = self.streams[queue[turn]].tolist()
                start = begin + (step - (int(stop_steps[turn - 1]) if turn else 0)) * self.length
                reads.append(
                    ChunkRead(sequence, start, min(start + self.length, end), start == begin, row, False, None)
                )
        return reads


def num_chunks(streams: Int64[ndarray, "s 3"], length: int) -> Int64[ndarray, " s"]:
    """Chunks of `length` frames per stream; the last one may be padded."""
    return -((streams[:, 1] - streams[:, 2]) // length)


def _pack(lengths: Int64[ndarray, " n"], num_lanes: int) -> tuple[Int64[ndarray, " n"], Int64[ndarray, " lanes"]]:
    """Lane of each stream, each given to the emptiest lane in turn; and the lanes' loads in steps."""
    lanes = [(0, lane) for lane in range(num_lanes)]
    chosen = np.empty(len(lengths), dtype=np.int64)
    for i, length in enumerate(lengths.tolist()):
        load, lane = lanes[0]
        chosen[i] = lane
        heapq.heapreplace(lanes, (load + length, lane))
    loads = np.zeros(num_lanes, dtype=np.int64)
    np.add.at(loads, chosen, lengths)
    return chosen, loads


class _EndlessShuffle:
    """0..n-1 in shuffled order, again and again."""

    def __init__(self, n: int, seed: tuple[int, ...]) -> None:
        self._n, self._seed = n, seed
        self._passes, self._left = 0, []

    def next(self) -> int:
        if not self._left:
            self._left = np.random.default_rng((*self._seed, self._passes)).permutation(self._n).tolist()
            self._passes += 1
        return self._left.pop()
