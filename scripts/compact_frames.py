"""Write the compact frame store beside every frames file of a data set that has none, such as one RVT's script made.

python scripts/compact_frames.py DATASET_PATH dataset=gen4 workers=8
python scripts/compact_frames.py DATASET_PATH dataset=gen4 workers=8 layout=rvt    # the other way: RVT's frames files

Training reads the compact files where they exist, several times faster; RVT's own code reads the frames files. What is
there stays as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from config.errors import UserError
from config.loading import load_dataset_config
from config.schema import DatasetConfig
from config.search_path import add_config_dir
from data.frame_files import add_frame_files
from data.layout import SPLITS, SequenceLayout, frame_files_of, sequence_folders
from scripts.parallel import run_beside_others, split_key, split_workers


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_path", type=Path, metavar="DATASET_PATH")
    parser.add_argument(
        "overrides",
        nargs="+",
        metavar="key=value",
        help="dataset=NAME, layout=compact|rvt|both (compact), workers=N (1), any dataset key",
    )
    add_config_dir(parser)
    options = parser.parse_intermixed_args(arguments)
    try:
        workers, overrides = split_workers([*options.config_dirs, *options.overrides])
        layout, overrides = split_key("layout", "compact", overrides)
        files = frame_files_of(layout)
        sequences = find_sequences(options.dataset_path, load_dataset_config(overrides))
        add = partial(add_frame_files, files=files)
        outcomes = run_beside_others(
            add, sequences, workers, Console(), name_of=lambda layout: layout.folder, what="sequences"
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return 130
    errors = [outcome for outcome in outcomes if isinstance(outcome, UserError)]
    written = [outcome for outcome in outcomes if isinstance(outcome, int)]
    wanted = len(written) * len(sequences[0].frame_files(files))
    print(f"{sum(written)} written, {wanted - sum(written)} were there already")
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 2 if errors else 0


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
