"""The plans' promises, for random data sets, batch sizes and world sizes."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.plan import ChunkRead, EvaluationPlan, TrainingPlan, num_chunks

LENGTH = 3

stream_sets = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 20)), min_size=1, max_size=12).map(
    lambda rows: np.array([(sequence, start, start + frames) for sequence, (start, frames) in enumerate(rows)])
)
chunk_counts = st.integers(1, 40)
rows = st.integers(1, 5)
world_sizes = st.integers(1, 4)


def chunks_of(count: int) -> np.ndarray:
    return np.stack([np.arange(count) % 7, np.arange(count)], axis=1)


def chunk_set(streams: np.ndarray) -> set[tuple[int, int, int]]:
    """All chunks of the streams, one by one."""
    return {
        (sequence, first, min(first + LENGTH, stop))
        for sequence, start, stop in streams.tolist()
        for first in range(start, stop, LENGTH)
    }


def epoch_of(plan: TrainingPlan, world_size: int, epoch: int = 0) -> list[list[list[ChunkRead]]]:
    """Batches by rank and step."""
    return [[plan.batch(epoch, step, rank) for step in range(plan.steps_per_epoch)] for rank in range(world_size)]


def stream_plan(streams: np.ndarray, num_rows: int, world_size: int, seed: int = 0) -> TrainingPlan:
    return TrainingPlan(
        streams,
        chunks_of(0),
        length=LENGTH,
        num_stream_rows=num_rows,
        num_random_rows=0,
        seed=seed,
        world_size=world_size,
    )


def repeated_plan(streams: np.ndarray, repeats: np.ndarray, num_rows: int, world_size: int) -> TrainingPlan:
    return TrainingPlan(
        streams,
        chunks_of(0),
        length=LENGTH,
        num_stream_rows=num_rows,
        num_random_rows=0,
        seed=0,
        world_size=world_size,
        repeats=repeats,
    )


def random_plan(count: int, num_rows: int, world_size: int = 1, weights: np.ndarray | None = None) -> TrainingPlan:
    return TrainingPlan(
        np.zeros((0, 3), dtype=np.int64),
        chunks_of(count),
        length=LENGTH,
        num_stream_rows=0,
        num_random_rows=num_rows,
        seed=0,
        world_size=world_size,
        weights=weights,
    )


def mixed_plan(streams: np.ndarray, count: int, world_size: int = 1, seed: int = 0) -> TrainingPlan:
    return TrainingPlan(
        streams,
        chunks_of(count),
        length=LENGTH,
        num_stream_rows=2,
        num_random_rows=1,
        seed=seed,
        world_size=world_size,
    )


@given(stream_sets, rows, world_sizes, st.integers(0, 3))
def test_training_reads_every_chunk_and_batches_are_full(
    streams: np.ndarray, num_rows: int, world_size: int, epoch: int
) -> None:
    plan = stream_plan(streams, num_rows, world_size)
    by_rank = epoch_of(plan, world_size, epoch)
    reads = [read for batches in by_rank for batch in batches for read in batch]
    assert {(read.sequence, read.start, read.stop) for read in reads} == chunk_set(streams)
    assert all([read.row for read in batch] == list(range(num_rows)) for batches in by_rank for batch in batches)


@given(stream_sets, rows, world_sizes)
def test_a_lane_follows_its_stream_and_is_first_where_one_starts(
    streams: np.ndarray, num_rows: int, world_size: int
) -> None:
    starts = {(sequence, start) for sequence, start, _ in streams.tolist()}
    stops = {sequence: stop for sequence, _, stop in streams.tolist()}
    for batches in epoch_of(stream_plan(streams, num_rows, world_size), world_size):
        for row in range(num_rows):
            lane = [batch[row] for batch in batches]
            assert lane[0].is_first
            for read in lane:
                assert read.is_first == ((read.sequence, read.start) in starts)
            for before, after in pairwise(lane):
                if after.is_first:
                    assert before.stop == stops[before.sequence]
                else:
                    assert (after.sequence, after.start) == (before.sequence, before.stop)
                    assert after.augmentation_seed == before.augmentation_seed


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6))
def test_nothing_is_read_twice_where_lanes_come_out_even(num_rows: int, streams_per_lane: int, num_steps: int) -> None:
    streams = np.array([(i, 0, LENGTH * num_steps) for i in range(num_rows * streams_per_lane)])
    plan = stream_plan(streams, num_rows, world_size=1)
    reads = [read for batch in epoch_of(plan, 1)[0] for read in batch]
    assert plan.steps_per_epoch == streams_per_lane * num_steps
    assert set(Counter((read.sequence, read.start) for read in reads).values()) == {1}


@given(stream_sets, rows)
def test_no_lane_waits_for_another_longer_than_one_stream(streams: np.ndarray, num_rows: int) -> None:
    counts = num_chunks(streams, LENGTH)
    even_share = (counts.sum() - counts.max()) / num_rows
    assert counts.max() <= stream_plan(streams, num_rows, 1).steps_per_epoch <= even_share + counts.max()


@given(stream_sets, rows, world_sizes)
@settings(max_examples=25, deadline=None)
def test_repeats_keep_batches_full_and_lanes_in_order(streams: np.ndarray, num_rows: int, world_size: int) -> None:
    plan = repeated_plan(streams, 1 + np.arange(len(streams)) % 3 / 2, num_rows, world_size)
    for batches in epoch_of(plan, world_size):
        assert all(len(batch) == num_rows for batch in batches)
        for before, after in pairwise(batches):
            for old, new in zip(before, after, strict=True):
                goes_on = (new.sequence, new.start) == (old.sequence, old.stop)
                assert new.is_first or (goes_on and new.augmentation_seed == old.augmentation_seed)


def test_streams_are_read_as_often_as_their_repeats_say() -> None:
    """On average over the epochs."""
    frames, repeats = np.tile([2, 5, 8], 40), np.tile([1.0, 1.25, 2.5, 3.0], 30)
    streams = np.stack([np.arange(120), np.zeros(120, int), frames], axis=1)
    plan = repeated_plan(streams, repeats, num_rows=4, world_size=2)
    assert plan.steps_per_epoch == -(-(repeats * num_chunks(streams, LENGTH)).sum() // 8)
    starts: Counter[int] = Counter()
    num_epochs = 60
    for epoch in range(num_epochs):
        for batches in epoch_of(plan, 2, epoch):
            starts.update(read.sequence for batch in batches for read in batch if read.is_first)
    mean = np.array([starts[number] for number in range(120)]) / num_epochs
    for value in np.unique(repeats):
        assert mean[repeats == value].mean() == pytest.approx(value, rel=0.05)


def test_repeats_are_part_of_what_a_resumed_run_compares() -> None:
    streams = np.array([(0, 0, 9), (1, 0, 4)])
    once, twice = stream_plan(streams, 2, 1), repeated_plan(streams, np.array([1.0, 2.0]), 2, 1)
    assert len({once.signature, twice.signature, repeated_plan(streams, np.array([2.0, 1.0]), 2, 1).signature}) == 3


@given(stream_sets, world_sizes)
def test_two_ranks_see_what_one_rank_with_all_lanes_sees(streams: np.ndarray, world_size: int) -> None:
    one, many = stream_plan(streams, 3 * world_size, 1), stream_plan(streams, 3, world_size)
    assert one.steps_per_epoch == many.steps_per_epoch
    for step in range(one.steps_per_epoch):
        lanes = one.batch(2, step)
        for rank in range(world_size):
            assert [read._replace(row=0) for read in many.batch(2, step, rank)] == [
                read._replace(row=0) for read in lanes[rank::world_size]
            ]


@given(stream_sets, chunk_counts, world_sizes, st.integers(0, 2**63))
def test_a_plan_depends_on_nothing_but_its_arguments(
    streams: np.ndarray, count: int, world_size: int, seed: int
) -> None:
    """A resumed run makes its plan anew and asks for the last step first."""
    plan, again = (mixed_plan(streams, count, world_size, seed) for _ in range(2))
    steps = [(epoch, step) for epoch in range(2) for step in range(plan.steps_per_epoch)]
    expected = {key: plan.batch(*key, rank=0) for key in steps}
    assert {key: again.batch(*key, rank=0) for key in reversed(steps)} == expected
    assert plan.signature == again.signature


@settings(max_examples=30)
@given(chunk_counts, rows, world_sizes)
def test_random_chunks_are_all_read_in_an_epoch_and_full_batches_need_few_twice(
    count: int, num_rows: int, world_size: int
) -> None:
    plan = random_plan(count, num_rows, world_size)
    reads = [read for batches in epoch_of(plan, world_size, 1) for batch in batches for read in batch]
    seen = Counter(read.start for read in reads)
    assert set(seen) == set(range(count))
    assert len(reads) - count < num_rows * world_size
    assert all(read.is_first and read.is_random and read.stop == read.start + LENGTH for read in reads)
    assert len({read.augmentation_seed for read in reads}) == len(reads)


def test_mixed_batches_take_random_chunks_in_turn_over_the_epochs() -> None:
    """Four steps an epoch read 4 of 10 chunks: after five epochs each has been read twice."""
    plan = mixed_plan(np.array([(0, 0, 12), (1, 0, 12)]), 10)
    assert plan.steps_per_epoch == 4
    reads = [read for epoch in range(5) for batch in epoch_of(plan, 1, epoch)[0] for read in batch]
    assert Counter(read.start for read in reads if read.is_random) == Counter({start: 2 for start in range(10)})
    assert [read.row for read in plan.batch(0, 0)] == [0, 1, 2]
    assert [read.is_random for read in plan.batch(0, 0)] == [False, False, True]


def test_weights_draw_chunks_in_proportion() -> None:
    plan = random_plan(1000, 10, weights=np.where(np.arange(1000) < 500, 3.0, 1.0))
    reads = [read for batch in epoch_of(plan, 1)[0] for read in batch]
    assert np.mean([read.start < 500 for read in reads]) == pytest.approx(0.75, abs=0.05)


def test_chunks_of_weight_zero_are_never_drawn() -> None:
    plan = random_plan(20, 4, weights=np.arange(20) % 2)
    assert all(read.start % 2 for batch in epoch_of(plan, 1)[0] for read in batch)


def test_epochs_and_seeds_shuffle() -> None:
    streams = np.array([(i, 0, 6) for i in range(20)])
    first = epoch_of(stream_plan(streams, 4, 1), 1)
    assert first != epoch_of(stream_plan(streams, 4, 1), 1, epoch=1)
    assert first != epoch_of(stream_plan(streams, 4, 1, seed=1), 1)


@given(stream_sets, rows, world_sizes)
def test_evaluation_reads_every_frame_once_in_order(streams: np.ndarray, num_rows: int, world_size: int) -> None:
    plan = EvaluationPlan(streams, LENGTH, num_rows, world_size)
    frames: list[tuple[int, int]] = []
    for rank in range(world_size):
        lanes: dict[int, ChunkRead] = {}
        for step in range(plan.num_steps(rank)):
            batch = plan.batch(step, rank)
            assert batch, "a step without rows"
            for read in batch:
                frames += [(read.sequence, frame) for frame in range(read.start, read.stop)]
                before = lanes.get(read.row)
                goes_on = before is not None and (before.sequence, before.stop) == (read.sequence, read.start)
                assert read.is_first != goes_on
                assert read.augmentation_seed is None
                lanes[read.row] = read
        assert plan.batch(plan.num_steps(rank), rank) == []
    assert sorted(frames) == [
        (sequence, frame) for sequence, start, stop in streams.tolist() for frame in range(start, stop)
    ]
