"""A share that no class is below would be a wish that nothing fulfils."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from config.schema import TrainConfig
from modules.data import EventDataModule
from modules.run.repeats import about_repeats
from tests.conftest import write_sequence


def test_how_many_streams_are_repeated_is_told(make_config: Callable[..., TrainConfig]) -> None:
    """One stream of four has a tram."""
    folder = make_config().dataset.path / "train"
    shutil.rmtree(folder)
    for number in range(4):
        write_sequence(folder / f"sequence_{number}", 6, {3: [(6 if number == 0 else 1, 4.0, 2.0, 10.0, 8.0)]})
    told = {}
    for threshold in ("0.2", "0.5"):
        options = ("dataset.train.sampling=stream", f"dataset.train.repeat_threshold={threshold}")
        config = make_config(*options)
        (told[threshold],) = about_repeats(config, EventDataModule(config))
    assert "repeat_threshold=0.2 changes nothing: every class that" in told["0.2"]
    assert "an epoch reads 1 of 4 streams more than once, up to 1.41 times" in told["0.5"]
    assert list(about_repeats(make_config(), EventDataModule(make_config()))) == []
