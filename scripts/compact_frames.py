"""Write the compact frame store beside every frames file of a data set that has none, such as one RVT's script made.

python scripts/compact_frames.py DATASET_PATH dataset=gen4 workers=8
python scripts/compact_frames.py DATASET_PATH dataset=gen4 workers=8 layout=rvt    # the other way: RVT's frames files

Training reads the compact files where they exist, several times faster; RVT's own code reads the frames files. What is
there stays as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from config.errors import UserError
from config.loading import load_dataset_config
from config.schema import DatasetConfig
from data.frame_files import add_frame_files
from data.layout import SPLITS, SequenceLayout, sequence_folders
from scripts.frame_commands import exit_code, frame_options, tell_errors
from scripts.parallel import run_beside_others


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_code(partial(_convert, arguments))


def _convert(arguments: Sequence[str] | None) -> int:
    options = frame_options(__doc__, ["DATASET_PATH"], arguments)
    sequences = find_sequences(options.paths[0], load_dataset_config(options.overrides))
    add = partial(add_frame_files, files=options.files)
    outcomes = run_beside_others(
        add, sequences, options.workers, Console(), name_of=lambda layout: layout.folder, what="sequences"
    )
    written = [outcome for outcome in outcomes if isinstance(outcome, int)]
    wanted = len(written) * len(sequences[0].frame_files(options.files))
    print(f"{sum(written)} written, {wanted - sum(written)} were there already")
    return tell_errors(outcome for outcome in outcomes if isinstance(outcome, UserError))


def find_sequences(root: Path, dataset: DatasetConfig) -> list[SequenceLayout]:
    """The sequences that have a file of frames. Raises UserError where there is none."""
    folders = [folder for split in SPLITS for folder in sequence_folders(root / split)]
    layouts = [layout for folder in folders if (layout := SequenceLayout.of(folder, dataset)).present_frames]
    if not layouts:
        pattern = SequenceLayout.of(Path("*"), dataset).frames
        raise UserError(f"{root} has no {{{','.join(SPLITS)}}}/{pattern}. Check the path, and dataset=")
    return layouts


if __name__ == "__main__":
    sys.exit(main())
