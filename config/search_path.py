"""Where YAML files are looked for: in the project's own folder, then in folders of the user's.

A user names folders as in Hydra: `--config-dir FOLDER` (`-cd`) and `hydra.searchpath=[file:///a,b,pkg://package.conf]`.
`with_absolute_folders` makes all of them `--config-dir=/absolute`: that form is recorded with a run, whose folder may
be another one when it is resumed. Hydra gets them as its search path.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from config.errors import ConfigError, Problem
from config.quoting import quote, unquote

CONFIG_FOLDER = Path(__file__).resolve().parent
CHOSEN_BY_DEFAULT = ("dataset", "model")  # the groups that train.yaml and val.yaml name in their defaults
OPTION = "--config-dir"
SHORT_OPTION = "-cd"
RECORDED = f"{OPTION}="
SEARCHPATH = re.compile(r"\+{0,2}hydra\.searchpath=(?P<folders>.*)", re.DOTALL)


@dataclass(frozen=True)
class SearchPath:
    """Folders with YAML files. A file that several of them have is taken from the first, as Hydra does."""

    folders: tuple[Path, ...] = (CONFIG_FOLDER,)

    @classmethod
    def split(cls, arguments: Sequence[str], project: Path = CONFIG_FOLDER) -> tuple[SearchPath, list[str]]:
        """The search path that arguments ask for, and the other arguments. ConfigError for folders without YAML."""
        arguments = with_absolute_folders(arguments)
        own = [Path(text.removeprefix(RECORDED)) for text in arguments if text.startswith(RECORDED)]
        problems = [problem for folder in own for problem in _unusable(folder)]
        if problems:
            raise ConfigError(problems)
        others = [text for text in arguments if not text.startswith(RECORDED)]
        return cls((project, *(folder for folder in own if folder != project))), others

    @property
    def overrides(self) -> list[str]:
        """The user's folders as Hydra takes them."""
        own = ",".join(quote(f"file://{folder}") for folder in self.folders[1:])
        return [f"hydra.searchpath=[{own}]"] if own else []

    def groups(self) -> list[str]:
        """Config groups, such as `dataset` and `experiment/gen4`."""
        found = {
            str(parent)
            for folder in self.folders
            for path in _yaml_files(folder)
            for parent in path.relative_to(folder).parents[:-1]
        }
        return sorted(found)

    def choices(self, group: str) -> dict[str, Path]:
        """Choices of a group (`maxvit_yolox/plain_lstm` for `model`) and their files."""
        found: dict[str, Path] = {}
        for folder in self.folders:
            for path in _yaml_files(folder / group):
                found.setdefault(str(path.relative_to(folder / group).with_suffix("")), path)
        return found

    def files(self, config_path: str) -> list[Path]:
        """The files of a choice such as `dataset/gen4`: the one that is read, and those that it hides."""
        return [path for folder in self.folders if (path := folder / f"{config_path}.yaml").is_file()]

    def listing(self, group: str, complete_only: bool = False) -> str:
        """The choices of a group, one a line, as they are typed, each with the first comment of its file."""
        found = {name: _text(path) for name, path in self.choices(group).items()}
        if group == "dataset" or complete_only:
            found = {name: text for name, text in found.items() if name != "base" and ": ???" not in text}
        return _lines(group, found)

    def experiments(self) -> str:
        """The choices of all groups that are added to a data set and a model."""
        listings = []
        for group in self.groups():
            if group.split("/")[0] not in (*CHOSEN_BY_DEFAULT, "hydra"):
                direct = {name: _text(path) for name, path in self.choices(group).items() if "/" not in name}
                listings += [_lines(group, direct)] if direct else []
        return "\n".join(listings)

    def told(self, path: Path) -> str:
        """A file's name in messages: the project's from its own folder, the user's in full."""
        project = self.folders[0]
        return str(Path(project.name, path.relative_to(project)) if path.is_relative_to(project) else path)


def with_absolute_folders(arguments: Sequence[str]) -> list[str]:
    """All folders of YAML files that arguments name, as `--config-dir=/absolute`, before the other arguments."""
    folders: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for text in rest:
        name, _, value = text.partition("=")
        if text in (OPTION, SHORT_OPTION) or name in (OPTION, SHORT_OPTION):
            value = value if "=" in text else next(rest, "")
            if not value.strip():
                raise ConfigError([Problem(OPTION, f"names no folder: {OPTION} FOLDER")])
            folders.append(_absolute(value))
        elif match := SEARCHPATH.fullmatch(text.strip()):
            folders += [_absolute(folder) for folder in _listed(match["folders"])]
        else:
            others.append(text)
    return [*(RECORDED + folder for folder in dict.fromkeys(folders)), *others]


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """Let a script take folders of the user's; `config_dirs` goes before its overrides."""
    parser.add_argument(
        OPTION,
        SHORT_OPTION,
        dest="config_dirs",
        type=RECORDED.__add__,
        action="append",
        default=[],
        metavar="FOLDER",
        help="a folder of your own with dataset/NAME.yaml",
    )


def _absolute(folder: str) -> str:
    if folder.startswith("pkg://"):
        return _package_folder(folder)
    path = Path(folder.removeprefix("file://"))
    with contextlib.suppress(RuntimeError):  # there may be no home
        path = path.expanduser()
    return str(path.absolute())


def _package_folder(text: str) -> str:
    name = text.removeprefix("pkg://").replace("/", ".")
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        message = f"{text} is no package that Python finds. Is it installed, or in a folder of PYTHONPATH?"
        raise ConfigError([Problem("hydra.searchpath", message)])
    return str(Path(next(iter(spec.submodule_search_locations))).absolute())


def _listed(text: str) -> list[str]:
    try:
        value = OverridesParser.create().parse_override(f"x={text}").value()
    except HydraException:  # its grammar has no ~ and no letters but English ones
        inside = text.strip()
        value = [unquote(folder) for folder in inside[1:-1].split(",")] if inside[:1] + inside[-1:] == "[]" else None
    if not isinstance(value, list) or not all(isinstance(folder, str) and folder for folder in value):
        message = f"is {text}; allowed: a list of folders, hydra.searchpath=[FOLDER,FOLDER]; {OPTION} FOLDER adds one"
        raise ConfigError([Problem("hydra.searchpath", message)])
    return value


def _unusable(folder: Path) -> Iterator[Problem]:
    if not folder.is_dir():
        yield Problem(OPTION, f"{folder} is not a folder. If it was moved, type {OPTION} with where it is now")
    elif next(_yaml_files(folder), None) is None:
        message = f"{folder} holds no .yaml file in dataset/, model/ or experiment/"
        yield Problem(OPTION, message + ("; .yml is not read" if any(folder.rglob("*.yml")) else ""))
    elif not any(path.parent != folder for path in _yaml_files(folder)):
        groups = "dataset/NAME.yaml, model/NAME.yaml, experiment/NAME.yaml"
        yield Problem(OPTION, f"{folder} has YAML files, but in no folder of theirs: a choice is {groups}")


def _yaml_files(folder: Path) -> Iterator[Path]:
    """In order of their names; also behind links, each folder once."""
    seen = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(where) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(where))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        paths = (Path(where, name) for name in sorted(files) if name.endswith(".yaml"))
        yield from (path for path in paths if path.is_file())  # no pipe, which would be waited for


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _lines(group: str, texts: dict[str, str]) -> str:
    width = max((len(name) for name in texts), default=0)
    sign = "" if group.split("/")[0] in CHOSEN_BY_DEFAULT else "+"
    return "\n".join(
        f"    {sign}{group}={name:<{width}}  {_first_comment(text)}".rstrip() for name, text in texts.items()
    )


def _first_comment(text: str) -> str:
    lines = (line for line in text.splitlines() if line.startswith("#") and not line.startswith("# @package"))
    return next(lines, "").lstrip("# ")
