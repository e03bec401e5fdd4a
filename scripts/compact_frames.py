"""Write the compact frame store beside every frames file of a data set that has none, such as one RVT's script made.

python scripts/compact_frames.py DATASET_PATH dataset=gen4 workers=8

Training reads the compact files where they exist, several times faster; the frames files stay as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from config.errors import UserError
from config.loading import load_dataset_config
from config.schema import DatasetConfig
from config.search_path import add_config_dir
from data.frame_store import FrameStore, FrameStoreWriter
from data.layout import SPLITS, SequenceLayout, compact_path
from data.sequence import Hdf5Frames
from data.workplace import workplace
from scripts.parallel import run_beside_others, split_workers


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_path", type=Path, metavar="DATASET_PATH")
    parser.add_argument(
        "overrides", nargs="+", metavar="key=value", help="dataset=NAME, workers=N (1), any dataset key"
    )
    add_config_dir(parser)
    options = parser.parse_intermixed_args(arguments)
    try:
        workers, overrides = split_workers([*options.config_dirs, *options.overrides])
        dataset = load_dataset_config(overrides)
        frames_paths = find_frames(options.dataset_path, dataset)
        outcomes = run_beside_others(compact, frames_paths, workers, Console(), what="frames files")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return 130
    errors = [outcome for outcome in outcomes if isinstance(outcome, UserError)]
    written, present = (sum(outcome is kind for outcome in outcomes) for kind in (True, False))
    print(f"{written} written, {present} were there already")
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 2 if errors else 0


def find_frames(root: Path, dataset: DatasetConfig) -> list[Path]:
    """The frames files of all sequences. Raises UserError where there is none."""
    pattern = str(SequenceLayout.of(Path("*"), dataset).frames)
    paths = [path for split in SPLITS for path in sorted((root / split).glob(pattern))]
    if not paths:
        raise UserError(f"{root} has no {{{','.join(SPLITS)}}}/{pattern}. Check the path, and dataset=")
    return paths


def compact(frames_path: Path, on_frame: Callable[[], None] = lambda: None, *, wait: bool = False) -> bool:
    """Write the compact store of one frames file; False where one of the same length is there already.

    Raises UserError where either file fails; then nothing is left of the new one. BusyError where another process is
    writing it, whose end it waits for with `wait`.
    """
    source, target = Hdf5Frames(frames_path), compact_path(frames_path)
    try:
        if _length(target) == len(source):
            return False
        with workplace(target.with_name(f".partial_{target.stem}"), target, wait=wait) as folder:
            if _length(target) == len(source):
                return False
            partial = folder / target.name
            frame = np.empty((1, *source.frame_chw), np.uint8)
            with FrameStoreWriter(partial, source.frame_chw) as writer:
                for index in range(len(source)):
                    source.read(index, index + 1, frame)
                    writer.append(frame[0])
                    on_frame()
            partial.replace(target)
        return True
    except OSError as error:  # those of reading are UserErrors by now
        raise UserError(f"{target} cannot be written: {error}. The same command goes on from here") from error
    finally:
        source.close()


def _length(path: Path) -> int | None:
    """Number of frames of a compact store; None where there is none that can be opened."""
    try:
        store = FrameStore(path)
    except UserError:
        return None
    store.close()
    return len(store)


if __name__ == "__main__":
    sys.exit(main())
