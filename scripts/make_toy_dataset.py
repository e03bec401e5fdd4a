"""Make the toy traffic data set: raw recordings of eight classes in eTraM's form, for scripts/preprocess.py.

python scripts/make_toy_dataset.py datasets/toy_raw
python scripts/make_toy_dataset.py datasets/toy_full_raw --full
python scripts/make_toy_dataset.py datasets/toy_distant_raw --full --distant
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from config.errors import UserError
from data.layout import SPLITS
from data.toy.recording import write_recording

DEFAULT_SIZES = {False: (32, 6, 4), True: (8, 2, 2)}  # recordings per split, without and with --full
RECORD_NAME = "toy_dataset.json"  # written last: a folder that has it is complete


def frame_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) >= 120 and int(width) >= 160):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 360x640, at least 120x160")
    return int(height), int(width)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to make; one that is complete is left as it is")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds and options give equal files (default 0)")
    for split, small, full in zip(SPLITS, DEFAULT_SIZES[False], DEFAULT_SIZES[True], strict=True):
        parser.add_argument(
            f"--{split}", type=int, help=f"recordings in {split} (default {small}, or {full} with --full)"
        )
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each recording (default 3)")
    parser.add_argument("--size", type=frame_size, help="HxW of the sensor in pixels (default 360x640)")
    parser.add_argument("--full", action="store_true", help="720x1280, the sensor of eTraM")
    parser.add_argument(
        "--distant",
        action="store_true",
        help="seen from afar, as eTraM is: pedestrians of 10 to 40 pixels on a sensor of any size, rare trams",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    options = parser.parse_args(arguments)
    if options.full and options.size:
        parser.error("--full is --size 720x1280: give one of them")
    if options.seconds < 1 or options.workers < 1 or options.seed < 0:
        parser.error("--seconds and --workers are at least 1, --seed at least 0")
    options.size = options.size or ((720, 1280) if options.full else (360, 640))
    for split, default in zip(SPLITS, DEFAULT_SIZES[options.full], strict=True):
        chosen = getattr(options, split)
        setattr(options, split, default if chosen is None else chosen)
    return options


def describe(options: argparse.Namespace) -> dict:
    """What determines the files."""
    counts = {split: getattr(options, split) for split in SPLITS}
    fixed = {"seed": options.seed, "seconds": options.seconds, "size_hw": list(options.size), "recordings": counts}
    return fixed | ({"distant": True} if options.distant else {})


def already_there(out: Path, description: dict) -> bool:
    """Whether `out` holds this very set. Raises UserError where it holds anything else."""
    record = out / RECORD_NAME
    if record.is_file() and json.loads(record.read_text()) == description:
        return True
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not the data set asked for. Remove it, or choose another folder")
    return False


def make_recordings(folder: Path, options: argparse.Namespace) -> Iterator[int]:
    """Write all recordings below `folder`; yields the number of events of each as it is ready."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        jobs = []
        for split_number, split in enumerate(SPLITS):
            (folder / split).mkdir(parents=True)
            for index in range(getattr(options, split)):
                seed = (options.seed, split_number, index)
                name = f"street_{split}_{index:03d}"
                scene = (options.size, options.seconds, index, seed, options.distant)
                jobs.append(pool.submit(write_recording, folder / split, name, *scene))
        for job in as_completed(jobs):
            yield job.result()


def make_dataset(options: argparse.Namespace) -> None:
    description = describe(options)
    if already_there(options.out, description):
        print(f"{options.out} is complete already: nothing to do")
        return
    partial = options.out.with_name(f".{options.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    start = last_line = time.monotonic()
    total, events = sum(description["recordings"].values()), 0
    for number, count in enumerate(make_recordings(partial, options), start=1):
        events += count
        now = time.monotonic()
        if number == total or now - last_line > 10:
            last_line = now
            print(f"{number} of {total} recordings, {events / 1e6:.1f} M events, {now - start:.0f} s", flush=True)
    (partial / RECORD_NAME).write_text(json.dumps(description, indent=2) + "\n")
    if options.out.is_dir():
        options.out.rmdir()  # an empty folder
    partial.rename(options.out)
    print(f"{options.out} is complete. Next: python scripts/preprocess.py {options.out} OUT dataset=toy")


def main() -> int:
    try:
        make_dataset(parse_arguments())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
