"""Which plan a config asks for, and samplers that hand its batches to a loader, from where the run stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from config.errors import UserError
from config.schema import Config
from data.index import SplitIndex
from data.layout import CHECK_LABELS
from data.plan import ChunkRead, EvaluationPlan, TrainingPlan


def make_training_plan(config: Config, index: SplitIndex, world_size: int) -> TrainingPlan:
    """The plan that `dataset.train` asks for. Raises UserError where the data set or batch size cannot give it."""
    dataset, sampling = config.dataset, config.dataset.train
    num_stream_rows, num_random_rows = rows_per_kind(config)
    streams = index.training_streams(dataset.sequence_length)
    chunks = index.random_chunks(dataset.sequence_length)
    if len(streams) == 0:
        raise UserError(f"{index.split} has no labelled frame. {CHECK_LABELS}")
    weights, repeats = None, None
    if num_stream_rows and sampling.repeat_threshold is not None:
        repeats = index.stream_repeats(streams, sampling.repeat_threshold)
    if num_random_rows:
        if len(chunks) == 0:
            raise UserError(
                f"{index.split} has no labelled frame with dataset.sequence_length={dataset.sequence_length} frames up "
                "to it. Take a smaller sequence_length, or dataset.train.sampling=stream"
            )
        if sampling.random.weighted_sampling:
            weights = index.chunk_weights(chunks, dataset.sequence_length)
            if not weights.any():
                raise UserError(f"{index.split} has no boxes. Set dataset.train.random.weighted_sampling=false")
    return TrainingPlan(
        streams,
        chunks,
        length=dataset.sequence_length,
        num_stream_rows=num_stream_rows,
        num_random_rows=num_random_rows,
        seed=config.reproduce.seed_everything or 0,
        world_size=world_size,
        weights=weights,
        repeats=repeats,
    )


def rows_per_kind(config: Config) -> tuple[int, int]:
    """Rows of a rank's batch that follow streams, and rows of chunks that stand alone."""
    batch_size, sampling = config.batch_size.train, config.dataset.train
    if sampling.sampling != "mixed":
        return (batch_size, 0) if sampling.sampling == "stream" else (0, batch_size)
    assert batch_size >= 2, "the config's checks want a row of each kind"
    share = sampling.mixed.w_random / (sampling.mixed.w_stream + sampling.mixed.w_random)
    num_random_rows = min(max(round(batch_size * share), 1), batch_size - 1)
    return batch_size - num_random_rows, num_random_rows


@dataclass(frozen=True)
class TrainingSampler:
    """Batch sampler: one plan epoch per pass, or what is left of it at the position where the run stands."""

    plan: TrainingPlan
    rank: int
    position: Callable[[], int]

    def __len__(self) -> int:
        return self.plan.steps_per_epoch

    def __iter__(self) -> Iterator[list[ChunkRead]]:
        epoch, first_step = divmod(self.position(), self.plan.steps_per_epoch)
        for step in range(first_step, self.plan.steps_per_epoch):
            yield self.plan.batch(epoch, step, self.rank)


@dataclass(frozen=True)
class EvaluationSampler:
    """Batch sampler over all of a rank's evaluation frames."""

    plan: EvaluationPlan
    rank: int

    def __len__(self) -> int:
        return self.plan.num_steps(self.rank)

    def __iter__(self) -> Iterator[list[ChunkRead]]:
        for step in range(len(self)):
            yield self.plan.batch(step, self.rank)
