"""Behaviour of modules/run/meeting.py: which processes make one run, and how their mistakes are told."""

from __future__ import annotations

from typing import Any

import pytest

from modules.run.meeting import by_node, judge_meeting


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
