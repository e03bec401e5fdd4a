"""WandB fails in every way that it can here: training goes on at its pace, and metrics.csv has everything."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from tests.reliability import faults
from tests.reliability.conftest import Train
from tests.runs import losses, run_folder

KEY = "0" * 40


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """A WandB server that knows no key."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(401, "unauthorized")

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def taking_server() -> Iterator[HTTPServer]:
    """A WandB server that takes a run; what it answers is the least that wandb asks for."""
    bucket = {"id": "b", "displayName": "d", "config": "{}", "historyLineCount": 0}
    bucket["project"] = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
    answers = {
        "viewer": {"id": "v", "username": "u", "entity": "e", "flags": "{}", "teams": {"edges": []}},
        "serverInfo": {"cliVersionInfo": {"max_cli_version": "99.0.0", "min_cli_version": "0.1"}, "features": []},
        "upsertBucket": {"bucket": bucket, "inserted": True, "errors": []},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            data = {}
            if self.path.endswith("/graphql"):
                question = json.loads(asked)
                bucket["name"] = (question.get("variables") or {}).get("name")
                data = {name: answer for name, answer in answers.items() if name in question["query"]}
            answer = json.dumps({"data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that takes connections and never answers, as behind a firewall that drops packets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def wandb_environment(tmp_path: Path, **more: str) -> dict[str, str]:
    kept = {name: "" for name in os.environ if name.startswith("WANDB")}
    return {**kept, "HOME": str(tmp_path), "WANDB_MODE": "online", **more}


def check_offline_run(train: Train, tmp_path: Path, limit_s: float, **environment: str) -> str:
    started = time.monotonic()
    program = train("logger=wandb", "training.max_steps=3", environment=wandb_environment(tmp_path, **environment))
    assert program.exit_code() == 0, program.output()
    assert time.monotonic() - started < limit_s, program.output()
    folder = run_folder(tmp_path)
    assert len(losses(folder)) == 3
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert f"logging offline. Later: wandb sync {folder}/wandb/offline-run-" in program.output()
    assert "Traceback" not in program.output()
    return program.output()


def test_no_key(train: Train, tmp_path: Path) -> None:
    assert "no WandB key" in check_offline_run(train, tmp_path, 60)


def test_a_wrong_key(train: Train, tmp_path: Path, refusing_server: str) -> None:
    output = check_offline_run(train, tmp_path, 90, WANDB_API_KEY=KEY, WANDB_BASE_URL=refusing_server)
    assert "WandB cannot be reached" in output


@pytest.mark.slow
def test_no_way_to_the_server(train: Train, tmp_path: Path) -> None:
    check_offline_run(train, tmp_path, 90, WANDB_API_KEY=KEY, WANDB_BASE_URL="http://127.0.0.1:9")


@pytest.mark.slow
def test_a_server_that_never_answers(train: Train, tmp_path: Path, silent_server: str) -> None:
    check_offline_run(train, tmp_path, 90, WANDB_API_KEY=KEY, WANDB_BASE_URL=silent_server)


@pytest.mark.parametrize("at_the_end", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_its_process_is_killed(train: Train, tmp_path: Path, at_the_end: bool) -> None:
    program = train(
        "logger=wandb",
        "training.max_steps=30",
        environment=wandb_environment(tmp_path),
        prepare=faults.sleep_before_the_end if at_the_end else faults.steps_of_a_tenth_of_a_second,
    )
    program.wait_for_text("training: step")
    folder = run_folder(tmp_path)
    program.wait_for(lambda: (folder / "metrics.csv").is_file() and len(losses(folder)) >= (30 if at_the_end else 3))
    (core,) = (child for child in psutil.Process(program.pid).children(recursive=True) if "wandb-core" in child.name())
    killed = time.monotonic()
    core.send_signal(signal.SIGKILL)
    assert program.exit_code() == 0, program.output()
    assert time.monotonic() - killed < 60, program.output()
    assert list(losses(folder)) == list(range(30))
    assert "Traceback" not in program.output()
    assert "The run goes on; metrics.csv has everything" in program.output()


def test_a_server_that_is_lost_while_training_does_not_hold_the_run_at_its_end(
    train: Train, tmp_path: Path, taking_server: HTTPServer
) -> None:
    url = f"http://127.0.0.1:{taking_server.server_port}"
    program = train(
        "logger=wandb",
        "training.max_steps=40",
        environment=wandb_environment(tmp_path, WANDB_API_KEY=KEY, WANDB_BASE_URL=url),
        prepare=faults.wandb_waits_for_five_seconds_at_the_end,
    )
    program.wait_for_text("training: step")
    taking_server.shutdown()
    taking_server.server_close()
    assert program.exit_code() == 0, program.output()
    folder = run_folder(tmp_path)
    assert len(losses(folder)) == 40
    assert f"Later: wandb sync {folder}/wandb/run-" in program.output()
