"""Behaviour of modules/run/company.py: what processes agree on, two of them as threads of this one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from config.errors import UserError
from config.launch import Launch
from modules.run.company import Company, by_node, judge_meeting


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


def test_a_mistake_is_told_once_with_its_nodes_unless_it_is_everywhere() -> None:
    nodes = ["n1", "n1", "n2"]
    assert by_node(["wrong"] * 3, nodes) == "wrong"
    assert by_node([None, None, "no data"], nodes) == "on n2: no data"
    assert by_node([None] * 3, nodes) == ""


def answer(node_rank: int, **changes: Any) -> dict[str, Any]:
    return {
        "node": f"n{node_rank}",
        "node_rank": node_rank,
        "command": ["a", "b"],
        "agent": "",
        "error": None,
        **changes,
    }


def test_who_meets() -> None:
    verdict = judge_meeting([answer(0), answer(0), answer(1)])
    assert (verdict["nodes"], verdict["names"]) == (["n0", "n0", "n1"], ["n0", "n1"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"error": "wrong"}, "on n1: wrong"), ({"command": ["a", "c"]}, "rank 0 was given b, rank 1 on n1 c")],
)
def test_a_meeting_that_cannot_be_one_run(changes: dict[str, Any], told: str) -> None:
    assert told in judge_meeting([answer(0), answer(1, **changes)])["error"]
