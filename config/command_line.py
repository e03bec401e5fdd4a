"""The entry points' command line: checks everything before torch is imported, then hands over to Hydra.

    main = hydra_command("train", task)      # task(config: TrainConfig, argv: list) -> exit code

Hydra's own commands keep working: --cfg job, --info, --multirun, --shell-completion, launchers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from config import names
from config.account import stand_in_for_home
from config.console import let_prints_fail, open_missing_streams
from config.errors import ConfigError, Problem, Told, UserError
from config.grid import members_of, runs_of
from config.jobs import check_launching
from config.launch import read_launch
from config.loading import ROOTS, Loaded, check_composed, compose_checked, load, not_chosen
from config.overrides import Rewritten, rewrite
from config.record import recordable
from config.schema import Config
from config.search_path import CONFIG_FOLDER, OPTION, RECORDED, SearchPath, with_absolute_folders
from config.sweeps import NO_MEMORY, Kind, Sweep, run_member

Task = Callable[[Any, list[str]], int]  # typed config, command -> exit code
Speak = Callable[[UserError], NoReturn]
EXIT_CODE = 2
INFO = ("--info", "-i")
SPIN_COUNT = "2000"
_REFUSED_BY_THE_MACHINE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOTDIR),
)

EXAMPLES = {
    "train": "python train.py model=maxvit_yolox/plain_lstm dataset=gen4 dataset.path=FOLDER "
    "+experiment/gen4=plain_lstm_640x360_baseline",
    "val": "python validation.py model=maxvit_yolox/plain_lstm dataset=gen4 dataset.path=FOLDER checkpoint=FILE.ckpt",
}
NOTHING_CHOSEN = """\
no data set and no model are chosen. For example

    {example}

python {program} --help lists the choices."""
HELP = """\
{example}

Overrides: key=value where the key exists, +key=value anywhere; +experiment/<data set>=<name> adds an experiment.
{listings}

  --cfg job          print the composed configuration, with every key, and stop
  --config-dir, -cd  a folder of your own with dataset/, model/, experiment/ (docs/extending.md)
  --multirun, -m     one run for each value of a list: training.learning_rate=1e-4,2e-4
  --info             how the configuration is composed
  --shell-completion, -sc install=bash     (eval "$(python {program} -sc install=bash)")
  --hydra-help       Hydra's other flags
"""


def _let_openmp_wait_briefly() -> None:
    """Choose how GNU OpenMP's threads wait for each other, before torch loads it, unless the user has chosen.

    By default they spin for milliseconds, which takes the cores from each other and from the loader's workers as soon
    as anything else runs: a busy machine was up to ten times slower. Threads that sleep at once make a quiet machine 10
    to 20 % slower. A few microseconds avoid both (python scripts/benchmark.py measures: brief_spin).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


def hydra_command(
    config_name: str, task: Task, kind: Kind = NO_MEMORY, speak: Speak | None = None
) -> Callable[[], None]:
    """A `main()` that runs `task` on the config `train` or `val`; the user's mistakes end it with exit code 2.

    `kind` says how a sweep knows runs of it again, `speak` how several processes of a launcher tell a mistake once.
    """
    typed: list[str] = []
    launched_by = os.getpid()

    def run(cfg: DictConfig) -> None:
        sys.argv[:] = recordable(_command_of_this_run(typed), names.key_tree(ROOTS[config_name]), cfg)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            run_member(check_composed(config_name, cfg), list(sys.argv), told, kind, launched_by)
            return
        exit_code = told(check_composed(config_name, cfg), list(sys.argv))
        if exit_code:
            sys.exit(exit_code)

    def told(config: Config, argv: list[str]) -> int:
        with errors_without_traceback(speak=speak):
            return task(config, argv)

    def main() -> None:
        open_missing_streams()
        _let_openmp_wait_briefly()
        with errors_without_traceback(speak=speak):
            typed[:] = [sys.argv[0], *with_absolute_folders(sys.argv[1:])]
            sys.argv[1:] = _prepare(config_name, typed, kind)
        with errors_without_traceback():
            hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name=config_name)(run)()

    return main


@contextlib.contextmanager
def errors_without_traceback(*, speak: Speak | None = None) -> Generator[None]:
    """Every program's work goes in here: a user's mistake and what the machine refuses are a line and exit code 2.

    `speak` tells it in place of this, and ends, where a launcher has started several processes.
    """
    stand_in_for_home()
    try:
        if not __debug__:
            raise UserError("python -O and PYTHONOPTIMIZE leave out checks that Hydra and this project need")
        yield
    except UserError as error:
        if speak is not None and _has_fellows():
            speak(error)
        _end_with(str(error))
    except OSError as error:
        if error.errno not in _REFUSED_BY_THE_MACHINE:
            raise  # a file that is not there is our bug, or its own reader's to tell
        _end_with(": ".join(map(str, filter(None, (error.filename, error.strerror)))))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):  # torch's allocator
            raise
        if "DataLoader worker" in str(error):
            raise  # with its traceback, which names the place in the worker
        _end_with("the machine has not enough memory for it. Take a smaller network, batch_size or sequence_length")


def _has_fellows() -> bool:
    try:
        launch = read_launch()
    except UserError:  # which is what is told
        return False
    return launch.has_launcher and launch.world_size > 1


def _end_with(message: str) -> NoReturn:
    with contextlib.suppress(OSError):  # the exit code tells it even where nobody reads
        print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    raise Told(EXIT_CODE, message)


def _prepare(config_name: str, argv: Sequence[str], kind: Kind) -> list[str]:
    """Arguments for Hydra, after everything that can be checked without torch has been checked."""
    search, arguments = SearchPath.split(argv[1:])
    arguments = _with_kind_of_info(arguments)
    args = get_args_parser().parse_intermixed_args(arguments)
    shows = args.cfg or args.info is not None
    if shows or args.help or args.hydra_help:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends what it has seen enough of
    if args.shell_completion:
        return [*_folder_of_typed_line(os.environ.get("COMP_LINE", "")), *arguments]
    if args.hydra_help:
        return ["--hydra-help"]
    if args.help:
        print(_help(config_name, argv[0], search))
        sys.exit(0)
    if not arguments:
        raise UserError(NOTHING_CHOSEN.format(example=EXAMPLES[config_name], program=Path(argv[0]).name))
    if args.config_path or args.config_name or args.config_dir or args.experimental_rerun:
        flags = "--config-path, --config-name and --experimental-rerun"
        raise UserError(f"{flags} are not used here: {OPTION} FOLDER adds a folder of your own (docs/extending.md)")
    sweep = bool(args.multirun)
    check_launching(args.overrides, sweep=sweep)
    rewritten = rewrite(args.overrides, names.key_tree(ROOTS[config_name]), search, sweep=sweep)
    if shows or sweep:
        _raise(rewritten.problems)
    if shows:
        composed = compose_checked(config_name, rewritten, search)
        _raise(composed.problems)
        if composed.lacks_dataset and args.info != "plugins":
            _raise([not_chosen(search)])
    else:
        let_prints_fail()
        own = [text for text in argv if text.startswith(RECORDED)]
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # what fails from here on is no typing error: show where
        if sweep:
            return [*_prepare_sweep(config_name, argv[0], own, rewritten, search, kind), "--multirun"]
        _check_runs(config_name, [[*own, *args.overrides]])
    flags = [argument for argument in arguments if argument not in args.overrides]
    return [*search.overrides, *rewritten.hydra, *flags]  # flags last: --info would take an override for its value


def _with_kind_of_info(arguments: Sequence[str]) -> list[str]:
    """`--info dataset=gen4` is all of it about that command: argparse would take the override for the kind of info."""
    following = [*arguments, ""][1:]
    pairs = zip(arguments, following, strict=True)
    return [word for this, after in pairs for word in ((this, "all") if this in INFO and "=" in after else (this,))]


def _folder_of_typed_line(line: str) -> list[str]:
    """The first folder of a command that is being completed; Hydra completes the names in one."""
    try:
        search, _ = SearchPath.split(line.split())
    except ConfigError:  # half a name so far
        return []
    return [RECORDED + str(folder) for folder in search.folders[1:2]]


def _check_runs(config_name: str, runs: Sequence[Sequence[str]]) -> list[Loaded]:
    """Check each run of a sweep (usually there is one); every mistake and every warning is told once."""
    problems: dict[str, Problem] = {}
    warnings: dict[str, None] = {}
    loaded = []
    for overrides in runs:
        try:
            loaded.append(load(config_name, overrides, on_this_machine=True))
            warnings |= dict.fromkeys(loaded[-1].warnings)
        except ConfigError as error:
            problems |= {str(problem): problem for problem in error.problems}
    _raise(list(problems.values()))
    if read_launch().rank == 0:  # the other processes would repeat them
        for text in warnings:
            print(f"Warning: {text}", file=sys.stderr)
    return loaded


def _prepare_sweep(
    config_name: str, program: str, own: Sequence[str], rewritten: Rewritten, search: SearchPath, kind: Kind
) -> list[str]:
    """Check the members of a grid and hand them to Hydra's sweeper; return the overrides that they have in common."""
    runs, swept = runs_of(rewritten)
    loaded = _check_runs(config_name, [[*own, *rewritten.of_hydra, *run] for run in runs])
    members = members_of(config_name, runs, swept, loaded, search)
    Sweep(Path(program).name, members, kind).install()
    # those of one member: of the rest it needs its own node only
    return [*search.overrides, *rewritten.of_hydra, *members[0].overrides]


def _raise(problems: Sequence[Problem]) -> None:
    if problems:
        raise ConfigError(problems)


def _command_of_this_run(typed: Sequence[str]) -> list[str]:
    """The command as typed; in a sweep the one that makes this run alone, for its record and its GPU processes."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        own = [text for text in typed if text.startswith(RECORDED)]
        return [typed[0], *own, *hydra_config.overrides.task]
    return list(typed)


def _help(config_name: str, program: str, search: SearchPath) -> str:
    listings = "\n".join([search.listing("model", True), search.listing("dataset"), search.experiments()])
    return HELP.format(example=EXAMPLES[config_name], listings=listings, program=Path(program).name)
