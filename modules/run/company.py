"""The processes of one launch, on any number of nodes: they begin together, decide together and end together.

All goes through a store at the launch's address: torchrun's agent keeps it or, under srun, the first process. Processes
that Lightning starts on one machine are no part of it: they inherit what the first has decided.
"""

from __future__ import annotations

import atexit
import itertools
import json
import multiprocessing
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from torch.distributed import PrefixStore, TCPStore

from config.errors import SharedError, UserError
from config.launch import Launch
from modules.run.lifeline import GRACE_S, Lifeline, end_now

PATIENCE_S = 300.0  # for processes that start late or read a slow disk
WATCHED_S = 86_400.0  # once deaths are noticed: the first index of a large data set takes long
TOLD_S = 30.0
NEWS_S = 5.0  # between what a broken collective tells and the lifeline's word
LEAVE_S = 10.0
EXIT_CODE = 2


class Company:
    """This process and its fellows. `judge` functions run in the first process, on what all have answered."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.nodes: list[str] = []  # of each rank
        self.node_names: list[str] = []  # each node once
        self.agents: list[str] = []
        self.hint: Callable[[], str] = lambda: ""  # how to go on
        self._turn = itertools.count()
        self._store = _open_store(launch)
        self._patience_s = PATIENCE_S
        self._lifeline = Lifeline(launch.rank, self._mourn)
        self._loss: str | None = None
        self._has_left = False
        self._lost = threading.Event()

    def store_of_a_group(self) -> PrefixStore:
        """What a process group of all meets through."""
        return PrefixStore(f"group{next(self._turn)}", self._store)

    def ask(self, mine: Any, judge: Callable[[list[Any]], Any]) -> Any:
        """Return what the first process makes of all answers; plain JSON values, both."""
        name = f"ask{next(self._turn)}"
        if self.launch.rank == 0:
            self._store.set(name, json.dumps(judge([mine, *self._answers(name)])))
        else:
            self._store.set(f"{name}/{self.launch.rank}", json.dumps(mine))
        return json.loads(self._get(name))

    def tell(self, decide: Callable[[], Any]) -> Any:
        """Return what the first process decides. Its UserError ends all."""
        name = f"tell{next(self._turn)}"
        if self.launch.rank == 0:
            try:
                decision = {"value": decide()}
            except UserError as error:
                decision = {"error": str(error)}
            self._store.set(name, json.dumps(decision))
        decision = json.loads(self._get(name))
        if "error" in decision:
            self.refuse(decision["error"])
        return decision["value"]

    def _answers(self, name: str) -> list[Any]:
        ranks = range(1, self.launch.world_size)
        end = time.monotonic() + self._patience_s
        answers = []
        for rank in ranks:
            try:
                self._store.wait([f"{name}/{rank}"], timedelta(seconds=max(0.1, end - time.monotonic())))
            except RuntimeError:
                missing = [str(r) for r in ranks if not self._store.check([f"{name}/{r}"])]
                silent = f"nothing was heard of rank {', '.join(missing)} of {self.launch.world_size}"
                raise UserError(f"{silent} within {self._patience_s:.0f} s") from None
            answers.append(json.loads(self._store.get(f"{name}/{rank}")))
        return answers

    def _get(self, name: str) -> bytes:
        try:
            self._store.wait([name], timedelta(seconds=self._patience_s + TOLD_S))
            return self._store.get(name)
        except RuntimeError as error:
            self._leave_if_somebody_died()
            raise UserError(f"rank {self.launch.rank} on {node()}: the first process is silent: {error}") from None

    def refuse(self, message: str) -> NoReturn:
        """End all processes; the first one says why."""
        if self.launch.rank == 0:
            print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr, flush=True)
            self._store.set("told", "")
        else:
            with suppress(RuntimeError):  # torchrun would end the first one, too, as soon as another has ended
                self._store.wait(["told"], timedelta(seconds=TOLD_S))
        self.farewell()
        raise SystemExit(EXIT_CODE)

    # --- how it ends -------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """From now on each process learns of the others' end."""
        if self.launch.rank == 0:
            self.tell(lambda: self._lifeline.listen(self.launch.address, self.launch.port))
        else:
            place = self.tell(dict)
            try:
                self._lifeline.connect(place)
            except OSError as error:
                print(
                    f"rank {self.launch.rank} on {node()}: the first process cannot be reached at "
                    f"{', '.join(place['addresses'])}, port {place['port']} ({error}): if another process dies, this "
                    "one will notice late",
                    file=sys.stderr,
                    flush=True,
                )
        self._patience_s = WATCHED_S
        atexit.register(self.farewell)

    def farewell(self, why: str | None = None) -> None:
        """Leave, in agreement with the others or for a reason that ends them, too."""
        if self._has_left:
            return
        self._has_left = True
        self._lifeline.farewell(why)
        if self.launch.launcher != "srun" or why is not None:
            return
        with suppress(RuntimeError):  # the first process has not waited for so long
            left = self._store.add("left", 0 if self.launch.rank == 0 else 1)
            end = time.monotonic() + LEAVE_S
            while self.launch.rank == 0 and left < self.launch.world_size - 1 and time.monotonic() < end:
                time.sleep(0.02)  # the store, which goes with this process, has something to say to them
                left = self._store.add("left", 0)

    def _mourn(self, rank: int, why: str | None) -> None:
        if self._lost.is_set():
            return
        where = f"rank {rank} on {self.nodes[rank]}" if rank < len(self.nodes) else f"rank {rank}"
        told = (
            f"has ended: {why}" if why else "has ended without a word: killed (out of memory?), or its machine is gone"
        )
        self._loss = f"{where} {told}"
        self._speaks = self.launch.rank == 0 or (rank == 0 and self.launch.local_rank == 0)
        self._lost.set()
        time.sleep(GRACE_S)
        self._end()

    def _leave_if_somebody_died(self) -> None:
        """To be asked when something between processes has failed."""
        if self._lost.wait(NEWS_S):
            self._end()

    def _end(self) -> NoReturn:
        try:
            if self._speaks:
                told = f"{self._loss}, so all end. {self.hint()}".strip()
                print(f"\n{Path(sys.argv[0]).name}: {told}", file=sys.stderr, flush=True)
            for worker in multiprocessing.active_children():  # which ignore what stops a run
                worker.kill()
        finally:
            end_now(1)
        raise AssertionError("ended above")

    @contextmanager
    def members(self) -> Generator[None]:
        """Tell the others why this process fails, and leave without a traceback if it is because another has died."""
        try:
            yield
        except SharedError:
            self.farewell()
            raise
        except SystemExit as stop:
            self.farewell(f"exit code {stop.code}" if stop.code else None)
            raise
        except BaseException as error:
            if isinstance(error, RuntimeError):
                self._leave_if_somebody_died()
            first = (str(error).splitlines() or [""])[0]
            self.farewell(f"{type(error).__name__}: {first}" if not isinstance(error, UserError) else str(error))
            raise


def _open_store(launch: Launch) -> PrefixStore:
    """Keys of an earlier attempt of torchrun, or of another job that meets at the same port, are not ours."""
    keeps = launch.launcher == "srun" and launch.rank == 0
    try:
        socket.getaddrinfo(launch.address, launch.port)
    except OSError:
        told = f"rank {launch.rank} on {node()}: no machine {launch.address!r} is known here"
        raise UserError(f"{told}. MASTER_ADDR=ADDRESS names the node of rank 0") from None
    try:
        store = TCPStore(
            launch.address,
            launch.port,
            is_master=keeps,
            timeout=timedelta(seconds=PATIENCE_S),
            wait_for_workers=False,
        )
    except RuntimeError as error:
        where, first = f"{launch.address}:{launch.port}", str(error).splitlines()[0]
        if keeps:
            raise UserError(f"cannot wait for the other processes at {where}: {first}. Set MASTER_PORT") from None
        raise UserError(f"rank {launch.rank} on {node()}: no way to the first process at {where}: {first}") from None
    return PrefixStore(f"streamrvt/{launch.key}/{launch.attempt}", store)


def node() -> str:
    return os.environ.get("SLURMD_NODENAME") or platform.node()
