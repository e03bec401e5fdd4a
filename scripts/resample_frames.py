"""Make smaller frames beside those of the sensor's size, for a preprocessed data set whose recordings are gone.

python scripts/resample_frames.py DATASET_PATH dataset=gen4 sizes=[[360,640],[540,960]] workers=8

The frames of 720 x 1280 must be there. What is written equals, to the bit, what scripts/preprocess.py makes of the
recordings: half the size has the pixels of odd row and column (RVT's ds2_nearest), any size between has the sums of the
counts that fall into each of its cells, up to representation.count_cutoff. Labels serve all sizes and stay as they are,
as does a size that is there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from rich.console import Console

from config.errors import UserError
from config.schema import DatasetConfig
from data.layout import SPLITS, sequence_folders
from data.resampling import Resampled, resample_sequence
from scripts.frame_commands import exit_code, frame_options, tell_errors
from scripts.frame_sizes import HELP, load_sized_dataset
from scripts.parallel import run_beside_others


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_code(partial(_resample, arguments))


def _resample(arguments: Sequence[str] | None) -> int:
    options = frame_options(__doc__, ["DATASET_PATH"], arguments, keys=[HELP])
    (path,) = options.paths
    dataset, sizes = load_sized_dataset(options.overrides)
    folders = [folder for split in SPLITS for folder in sequence_folders(path / split)]
    if not folders:
        raise UserError(f"{path} has no sequences in {{{','.join(SPLITS)}}}. Check the path")
    print(_what_that_is(dataset, sizes))
    resample = partial(resample_sequence, dataset, sizes, files=options.files)
    return _summarise(run_beside_others(resample, folders, options.workers, Console(), what="sequences"), sizes)


def _what_that_is(dataset: DatasetConfig, sizes: Sequence[tuple[int, int]]) -> str:
    half = tuple(size // 2 for size in dataset.resolution_hw)
    kinds = {
        f"sums of counts up to {dataset.representation.count_cutoff}": [s for s in sizes if s != half],
        "the pixels of odd row and column (RVT's ds2_nearest)": [s for s in sizes if s == half],
    }
    told = (f"{_named(of_kind)}: {kind}" for kind, of_kind in kinds.items() if of_kind)
    return f"From frames of {_named([dataset.resolution_hw])}: {'; '.join(told)}. Equal to counting the events anew"


def _named(sizes: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{height} x {width}" for height, width in sizes)


def _summarise(outcomes: Sequence[Resampled | UserError], sizes: Sequence[tuple[int, int]]) -> int:
    """Print what was written and what failed. Returns the exit code."""
    done = [outcome for outcome in outcomes if isinstance(outcome, Resampled)]
    written = sum(outcome.num_sizes for outcome in done)
    print(f"{written} written, {len(done) * len(sizes) - written} were there already")
    if added := sum(outcome.num_files_added for outcome in done):
        print(f"{added} files in the other layout added to these")
    if silent := sum(not outcome.tells_settings for outcome in done):
        print(
            f"note: frames of {silent} sequences do not tell how they were counted. RVT's own script counts 256 events "
            "of a cell as 0: where its frames have such cells, so have these",
            file=sys.stderr,
        )
    return tell_errors(outcome for outcome in outcomes if isinstance(outcome, UserError))


if __name__ == "__main__":
    sys.exit(main())
