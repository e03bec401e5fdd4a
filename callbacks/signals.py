"""Signals: finish the step, save, leave with 128 + signal; SIGUSR1 saves and goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer

from data.loader import LoaderWatch
from modules.boundary import BoundaryCallback
from modules.detection import of_ours

STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR2)  # submitit's before the time is over
AGREE_EVERY_N_STEPS = 10  # under several processes; asking the others costs a round trip
_NOTHING, _SAVE, _STOP = 0, 1, 2
_PARENT = os.getppid()


@contextlib.contextmanager
def ends_on_a_signal() -> Generator[None]:
    """Where there is nothing to save: SystemExit with 128 + signal, so that workers end and Lightning tells no tale."""

    def leave(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    before = {signum: signal.signal(signum, leave) for signum in STOP_SIGNALS if not _is_ignored_by_nohup(signum)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _is_ignored_by_nohup(signum: int) -> bool:
    return signum == signal.SIGHUP and signal.getsignal(signum) == signal.SIG_IGN


class StopRequested(Exception):  # noqa: N818 (no error: the user asked for it)
    """Raised at a safe place after a stop signal. Callbacks see it in `on_exception`, before anything is torn down."""

    def __init__(self, signum: int, orphan: int | None = None) -> None:
        """`orphan`: the rank whose launcher has died, which is what the signal came of."""
        why = "" if orphan is None else f": the launcher of rank {orphan} has died"
        super().__init__(f"stopped by {signal.Signals(signum).name}{why}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        return 128 + self.signum


class SignalHandling(BoundaryCallback):
    """Turns signals into a stop at the next boundary between two steps, or between two validation batches.

    A handler may run between any two bytecodes, so it only takes a note. But while the main thread waits for the
    loader, and no gradients wait for the rest of their step, nothing is half done, and it may wait for long: there the
    handler raises at once (with one process only: several must stop at the same step). Before training has begun there
    is nothing to save: the process ends at once.

    A worker that dies is treated likewise, by the watch. With `requeue` SIGUSR1 stops, too: SLURM sends it some time
    before the end of a job.
    """

    def __init__(self, watch: LoaderWatch, *, requeue: bool = False) -> None:
        self.watch = watch
        self._requeue = requeue
        self.save_requested = False  # the checkpoint writer's cue, on all processes at the same step
        self._save_wished = False
        self._training = False
        self._signum: int | None = None
        self._alone = True
        self._between_steps: Callable[[], bool] = lambda: True
        self._previous: dict[int, Any] = {}
        self._report_unraisable = sys.unraisablehook

    def install(self) -> None:
        for signum in (*STOP_SIGNALS, signal.SIGUSR1, signal.SIGCHLD):
            if _is_ignored_by_nohup(signum):
                continue
            self._previous.setdefault(signum, signal.getsignal(signum))
            signal.signal(signum, self._child_has_ended if signum == signal.SIGCHLD else self._handle)
        sys.unraisablehook = self._report_unless_a_stop

    def uninstall(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()
        sys.unraisablehook = self._report_unraisable

    def _report_unless_a_stop(self, unraisable: Any) -> None:
        """What a handler raises inside a weak reference's callback goes nowhere; the next boundary raises it again."""
        if not isinstance(unraisable.exc_value, StopRequested | SystemExit):
            self._report_unraisable(unraisable)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGUSR1 and not self._requeue:
            self._save_wished = True
            return
        if self._signum is not None and signum == signal.SIGINT:
            os._exit(128 + signum)  # the second Ctrl-C: the user does not want to wait
        self._signum = signum
        if not self._training:
            raise SystemExit(128 + signum)
        if self.watch.is_waiting and self._alone and self._between_steps():
            raise StopRequested(signum)
        name = signal.Signals(signum).name
        with contextlib.suppress(OSError):  # nobody reads it any more
            os.write(2, f"\n{name}: finishing this step, then saving. Ctrl-C (again) ends at once.\n".encode())

    def _child_has_ended(self, signum: int, frame: FrameType | None) -> None:
        self.watch.child_ended()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training = True
        self._alone = trainer.world_size == 1
        self._between_steps = lambda: of_ours(pl_module).accumulation.between_steps
        self.install()  # Lightning and the loader have registered handlers of their own by now; ours must be the last

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.install()

    def on_step_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._alone:
            self._raise_if(self._signum)
            self._request_save(self._save_wished)
        elif is_time_to_agree(trainer):
            self._agree(pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._alone:
            self._raise_if(self._signum)

    def _agree(self, pl_module: LightningModule) -> None:
        wish = _STOP if self._signum is not None else _SAVE if self._save_wished else _NOTHING
        is_orphan = self._signum is not None and os.getppid() != _PARENT
        orphan = pl_module.global_rank if is_orphan else -1
        wishes = torch.tensor([wish, self._signum or 0, orphan], device=pl_module.device)
        torch.distributed.all_reduce(wishes, torch.distributed.ReduceOp.MAX)
        wish, signum, orphan = wishes.tolist()
        self._raise_if(signum if wish == _STOP else None, orphan if orphan >= 0 else None)
        self._request_save(wish == _SAVE)

    def _request_save(self, wished: bool) -> None:
        if wished:
            self.save_requested, self._save_wished = True, False

    @staticmethod
    def _raise_if(signum: int | None, orphan: int | None = None) -> None:
        if signum:
            raise StopRequested(signum, orphan)


def is_time_to_agree(trainer: Trainer) -> bool:
    """Whether the processes may ask each other something before this step."""
    return trainer.world_size == 1 or trainer.global_step % AGREE_EVERY_N_STEPS == 0
