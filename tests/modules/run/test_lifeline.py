"""Behaviour of modules/run/lifeline.py: two ends of it in one process."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator

import pytest

from modules.run.lifeline import Lifeline

News = queue.Queue[tuple[int, int, str | None]]  # who hears it, whom it is of, why
SOON_S = 20


@pytest.fixture
def news() -> News:
    return queue.Queue()


def member(rank: int, news: News) -> Lifeline:
    return Lifeline(rank, lambda lost, why: news.put((rank, lost, why)))


@pytest.fixture
def three(news: News) -> Iterator[list[Lifeline]]:
    members = [member(rank, news) for rank in range(3)]
    place = members[0].listen("127.0.0.1", 1)
    for each in members[1:]:
        each.connect(place)
    yield members
    for each in members:
        each.farewell()


def die(member: Lifeline) -> None:
    """As the kernel does it for a process that is killed."""
    for connection in list(member._sockets.values()):
        connection.shutdown(socket.SHUT_RDWR)


def test_a_death_is_told_to_all_others(three: list[Lifeline], news: News) -> None:
    die(three[2])
    heard = set()
    while not {(0, 2, None), (1, 2, None)} <= heard:
        heard.add(news.get(timeout=SOON_S))


def test_the_first_process_death_is_seen_by_all_others(three: list[Lifeline], news: News) -> None:
    die(three[0])
    heard = set()
    while not {(1, 0, None), (2, 0, None)} <= heard:
        heard.add(news.get(timeout=SOON_S))


def test_a_reason_is_passed_on_and_a_farewell_in_agreement_is_no_loss(three: list[Lifeline], news: News) -> None:
    three[0].farewell()
    three[2].farewell("its loader failed")
    heard = {news.get(timeout=SOON_S) for _ in range(2)}
    assert heard == {(0, 2, "its loader failed"), (1, 2, "its loader failed")}


def test_who_connects_late_hears_of_those_that_died_before(news: News) -> None:
    first, dead, late = (member(rank, news) for rank in range(3))
    place = first.listen("127.0.0.1", 1)
    dead.connect(place)
    die(dead)
    while news.get(timeout=SOON_S)[:2] != (0, 1):
        pass
    late.connect(place)
    while (heard := news.get(timeout=SOON_S))[0] != 2:
        pass
    assert heard == (2, 1, None)


def test_who_connects_late_hears_why_the_first_one_ends(news: News) -> None:
    first, late = member(0, news), member(1, news)
    place = first.listen("127.0.0.1", 1)
    first.farewell("its disk is full")
    late.connect(place)
    assert news.get(timeout=SOON_S) == (1, 0, "its disk is full")


def test_a_stranger_at_the_port_is_not_believed(news: News) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        answer = threading.Thread(target=lambda: stranger.accept()[0].sendall(b'no json\n{"token": "other"}\n'))
        answer.start()
        place = {"addresses": ["127.0.0.1"], "port": stranger.getsockname()[1], "token": "ours"}
        with pytest.raises(OSError, match="no address leads to it"):
            member(1, news).connect(place)
        answer.join()
