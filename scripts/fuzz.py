"""Damage small files at random and read them: what comes out must be right, or refused with one line.

python scripts/fuzz.py [cases=1000] [seed=N] [what=[frames,compact,npz,index,config,recordings,checkpoint]] [case=K]

Each case damages one file in one place and reads all of them in a process that may die of it. Outcomes: right (the
damage hit what nothing depends on), refused (an error that names the file); and, none of which may happen: silent
(something else was read), crash (a signal), exit0 (the process ended as if all were well), hang, traceback (another
error than the user's). Without seed= it is drawn, and printed. cases=all changes every byte once. case=K with the same
seed shows one case again. Exit code 1 where anything happened that may not.
"""

from __future__ import annotations

import multiprocessing
import random
import secrets
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from config.errors import UserError
from scripts.fuzz_kinds import KINDS, Target

GOOD, BAD = ("right", "refused"), ("silent", "crash", "exit0", "hang", "traceback")
_PATIENCE_S = 10.0
_MOST_SHOWN = 20
_LONGEST_STRETCH = 64


@dataclass(frozen=True)
class Damage:
    """The bytes that stand at a place of a file instead of its own."""

    path: Path
    position: int
    content: bytes
    what: str

    def __str__(self) -> str:
        return f"{self.path.name}: {self.what} at byte {self.position}"


@dataclass(frozen=True)
class Outcome:
    kind: str
    detail: str = ""


class Fuzzer:
    """Cases of one kind of file, each read in a process that is replaced where it dies."""

    def __init__(self, kind: str, folder: Path, seed: int, num_cases: int | None) -> None:
        self._kind, self._seed, self._num_cases = kind, seed, num_cases
        folder.mkdir(parents=True)
        self.target: Target = KINDS[kind](folder)
        self._sound = {path: path.read_bytes() for path in self.target.places}
        self._truth = self.target.read()
        pairs = ((path, pair) for path, places in self.target.places.items() for pair in places)
        self._every_byte = [(path, position) for path, pair in pairs for position in range(*pair)]
        self._context = multiprocessing.get_context("fork")
        self._process: multiprocessing.process.BaseProcess | None = None

    def __len__(self) -> int:
        return len(self._every_byte) if self._num_cases is None else self._num_cases

    def damage(self, case: int) -> Damage:
        """The same for the same seed and number."""
        rng = random.Random(f"{self._seed}/{self._kind}/{case}")
        path, position = self._every_byte[case] if self._num_cases is None else rng.choice(self._every_byte)
        sound = self._sound[path]
        how = rng.choice(("bit", "byte")) if self._num_cases is None else rng.choice(_KINDS_OF_DAMAGE)
        length = min(rng.randint(1, _LONGEST_STRETCH), len(sound) - position)
        if how == "bit":
            content = bytes([sound[position] ^ 1 << rng.randrange(8)])
        elif how == "byte":
            content = bytes([(sound[position] + rng.randrange(1, 256)) % 256])
        elif how == "cut":
            content = b""
        else:
            content = bytes(length) if how == "zeros" else rng.randbytes(length)
        told = f"{sound[position]:#04x} -> {content[0]:#04x}" if len(content) == 1 else f"{len(content)} bytes"
        return Damage(path, position, content, f"{how}, {told}")

    def run(self, case: int) -> Outcome:
        if self._process is None:
            self._connection, theirs = self._context.Pipe()
            self._process = self._context.Process(target=self._serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._connection.send(case)
            if self._connection.poll(_PATIENCE_S):
                return self._connection.recv()
            outcome = Outcome("hang", f"after {_PATIENCE_S:.0f} s")
            self._process.kill()
            self._process.join()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            outcome = Outcome("exit0") if code == 0 else Outcome("crash", f"exit code {code}")
        self._process = None
        self._restore()
        return outcome

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _serve(self, connection: Connection) -> None:
        warnings.simplefilter("ignore")
        while True:
            try:
                connection.send(self.outcome(connection.recv()))
            except EOFError:
                return

    def outcome(self, case: int) -> Outcome:
        """In this process, which may die of it."""
        damage = self.damage(case)
        sound = self._sound[damage.path]
        rest = sound[damage.position + len(damage.content) :] if damage.content else b""
        _overwrite(damage.path, sound[: damage.position] + damage.content + rest)
        try:
            found = self.target.read()
        except UserError as error:
            return Outcome("refused", str(error))
        except Exception:
            return Outcome("traceback", traceback.format_exc())
        finally:
            self._restore()
        return Outcome("right" if found == self._truth else "silent")

    def _restore(self) -> None:
        for path, content in self._sound.items():
            if not path.is_file() or path.read_bytes() != content:
                _overwrite(path, content)


_KINDS_OF_DAMAGE = ("bit", "byte", "byte", "zeros", "random", "cut")


def _overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _options(arguments: Sequence[str]) -> dict[str, str]:
    options = {"cases": "1000", "seed": str(secrets.randbelow(10**6)), "what": ",".join(KINDS), "case": ""}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in options or not value:
            raise UserError(f"{argument}: known are {', '.join(f'{name}=' for name in options)}; -h tells more")
        options[key] = value
    for key in ("cases", "seed", "case"):
        if not options[key].isdecimal() and options[key] != {"cases": "all", "seed": None, "case": ""}[key]:
            raise UserError(f"{key}={options[key]}: give a number")
    unknown = [kind for kind in _listed(options["what"]) if kind not in KINDS]
    if unknown:
        raise UserError(f"what={','.join(unknown)}: known are {', '.join(KINDS)}")
    return options


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.strip("[]").split(",") if name.strip()]


def _cases(fuzzer: Fuzzer, case: str) -> Iterator[int]:
    yield from [int(case)] if case else range(len(fuzzer))


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    try:
        options = _options(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    bad = 0
    try:
        for kind in _listed(options["what"]):
            bad += _fuzz(kind, folder / kind, options)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad else 0


def _fuzz(kind: str, folder: Path, options: dict[str, str]) -> int:
    """Print what became of each case of a kind; returns how many went wrong."""
    num_cases = None if options["cases"] == "all" else int(options["cases"])
    fuzzer = Fuzzer(kind, folder, int(options["seed"]), num_cases)
    counts, started = Counter[str](), time.monotonic()
    try:
        for case in _cases(fuzzer, options["case"]):
            outcome = fuzzer.run(case)
            counts[outcome.kind] += 1
            told = sum(counts[name] for name in BAD)
            if options["case"] or (outcome.kind in BAD and told <= _MOST_SHOWN):
                print(f"{outcome.kind}: {fuzzer.damage(case)}: {outcome.detail.strip().splitlines()[-1:]}")
                again = f"seed={options['seed']} cases={options['cases']} what={kind} case={case}"
                print(f"    python scripts/fuzz.py {again}" if not options["case"] else f"{outcome.detail}", flush=True)
    finally:
        fuzzer.close()
    told = ", ".join(f"{name} {counts[name]}" for name in (*GOOD, *BAD))
    print(f"{kind}: {counts.total()} cases, seed={options['seed']}: {told} ({time.monotonic() - started:.0f} s)")
    return sum(counts[name] for name in BAD)


if __name__ == "__main__":
    sys.exit(main())
