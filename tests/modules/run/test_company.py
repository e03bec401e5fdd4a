"""Behaviour of modules/run/company.py: what processes agree on, two of them as threads of this one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from config.errors import UserError
from config.launch import Launch
from modules.run.company import Company


def both(do: Callable[[Company], Any]) -> list[Any]:
    """What each of two processes gets; an exception counts as an answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    def run(rank: int) -> Any:
        try:
            return do(Company(Launch("srun", rank, 2, address="127.0.0.1", port=port, key="1.0")))
        except BaseException as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(2)))


def test_all_get_what_the_first_makes_of_all_answers() -> None:
    assert both(lambda company: company.ask(company.launch.rank + 1, sum)) == [3, 3]


def test_what_the_first_decides_holds_for_all_again_and_again() -> None:
    assert (
        both(lambda company: [company.tell(lambda: company.launch.rank), company.tell(lambda: "b")]) == [[0, "b"]] * 2
    )


def test_a_mistake_of_the_first_ends_all_and_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    def decide() -> None:
        raise UserError("no such run")

    ends = both(lambda company: company.tell(decide))
    assert [type(end) for end in ends] == [SystemExit] * 2
    assert [end.code for end in ends] == [2, 2]
    assert capfd.readouterr().err.count("no such run") == 1
