"""What the scripts that write files of frames share: their options, and how they end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.errors import UserError
from config.search_path import add_config_dir
from data.layout import FrameFiles, frame_files_of
from scripts.parallel import split_key, split_workers


@dataclass(frozen=True)
class FrameOptions:
    """A command line, with `workers=` and `layout=` taken out of the overrides."""

    paths: list[Path]
    workers: int
    files: FrameFiles
    overrides: list[str]


def frame_options(
    doc: str | None, paths: Sequence[str], arguments: Sequence[str] | None, *, keys: Sequence[str] = ()
) -> FrameOptions:
    """Read a command line, or tell what it may hold and exit.

    Args:
        doc: of the script.
        paths: what each is called in --help.
        arguments: None for those of the process.
        keys: of the script alone, as --help tells them.

    Raises:
        UserError: for a value of `workers=` or `layout=` that is none.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in paths:
        parser.add_argument(name, type=Path)
    told = ["dataset=NAME", *keys, "layout=compact|rvt|both (compact)", "workers=N (1)", "any dataset key"]
    parser.add_argument("overrides", nargs="+", metavar="key=value", help=", ".join(told))
    add_config_dir(parser)
    options = parser.parse_intermixed_args(arguments)
    workers, overrides = split_workers([*options.config_dirs, *options.overrides])
    layout, overrides = split_key("layout", "compact", overrides)
    return FrameOptions([getattr(options, name) for name in paths], workers, frame_files_of(layout), overrides)


def exit_code(command: Callable[[], int]) -> int:
    """Of a command that a mistake or Ctrl-C may end, which is told."""
    try:
        return command()
    except UserError as error:
        return tell_errors([error])
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return 130


def tell_errors(errors: Iterable[UserError]) -> int:
    """Print them, and give the exit code of a command that had these."""
    code = 0
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    return code
