"""What reading rare classes more often comes to, told before the first step."""

from __future__ import annotations

from collections.abc import Iterator

from config.schema import TrainConfig
from modules.data import EventDataModule


def about_repeats(config: TrainConfig, data: EventDataModule) -> Iterator[str]:
    """How many streams `dataset.train.repeat_threshold` repeats: none, where it is lower than what the set has."""
    threshold = config.dataset.train.repeat_threshold
    if threshold is None:
        return
    index = data.index("train")
    repeats = index.stream_repeats(index.training_streams(config.dataset.sequence_length), threshold)
    number, key = int((repeats > 1).sum()), f"dataset.train.repeat_threshold={threshold:g}"
    if not number:
        yield f"{key} changes nothing: every class that {index.split} has is in at least that share of its streams"
    else:
        most = f"up to {repeats.max():.2f} times"
        yield f"{key}: an epoch reads {number:,} of {len(repeats):,} streams more than once, {most}"
