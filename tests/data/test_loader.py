from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.utils.data import Dataset

from data.loader import LoaderWatch, StreamLoader

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
import time
from torch.utils.data import DataLoader
from data.loader import prepare_worker
loader = DataLoader(range(100), num_workers=1, worker_init_fn=prepare_worker, persistent_workers=True)
batches = iter(loader)
print(next(batches).item(), flush=True)
sys.modules["kept"] = batches
"""


def test_a_process_with_live_workers_ends(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "0\n"


def test_a_signal_to_the_group_leaves_workers_alone() -> None:
    script = SCRIPT + (
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "os.killpg(0, signal.SIGTERM)\n"
        "print(next(batches).item(), flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        process_group=0,
    )
    assert (done.returncode, done.stdout) == (0, "0\n1\n"), done.stderr


def test_a_worker_whose_batch_nobody_takes_any_more_prints_nothing_but_tells_other_errors() -> None:
    """As multiprocessing's thread for shared memory does: it passes what it meets to sys.excepthook."""
    script = (
        "import sys\n"
        "from torch.utils.data import DataLoader\n"
        "from data.loader import prepare_worker\n"
        "class Errors:\n"
        "    def __len__(self): return 2\n"
        "    def __getitem__(self, i):\n"
        "        try: raise (BrokenPipeError, ValueError)[i](f'error {i}')\n"
        "        except Exception: sys.excepthook(*sys.exc_info())\n"
        "        return i\n"
        "list(DataLoader(Errors(), num_workers=1, worker_init_fn=prepare_worker))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "error 0" not in done.stderr
    assert "ValueError: error 1" in done.stderr


def test_waiting_is_counted_and_announced() -> None:
    """The data set takes a tenth of a second a batch; between two batches nobody waits."""
    watch = LoaderWatch()
    waiting: list[bool] = []

    class Slow(Dataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> int:
            time.sleep(0.1)
            waiting.append(watch.is_waiting)
            return index

    loader = StreamLoader(Slow(), batch_size=None, watch=watch)
    for batch in loader:
        assert batch in (0, 1, 2)
        assert not watch.is_waiting
        time.sleep(0.2)
    assert waiting == [True] * 3
    assert 0.3 <= watch.take_waited_s() < 0.6
    assert watch.take_waited_s() == 0
    assert watch.failure is None


def test_what_ended_a_wait_is_kept() -> None:
    watch = LoaderWatch()

    class Broken(Dataset):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> int:
            raise ValueError("no such chunk")

    with pytest.raises(ValueError, match="no such chunk") as caught:
        next(iter(StreamLoader(Broken(), batch_size=None, watch=watch)))
    assert watch.failure is caught.value
    assert not watch.is_waiting
