"""A connection of each process to the first one, so that none outlives another by more than a minute.

A process that dies closes its socket, whatever killed it; a machine that dies stops to answer TCP's keepalive. Neither
takes a slow or stopped process for a dead one, which a heartbeat of its own threads would. NCCL and gloo would notice
after 10 to 30 minutes, or name no process.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

KEEPALIVE_S = (10, 5, 4)  # idle, between probes, probes: a machine that is gone is found out after half a minute
GRACE_S = 5.0  # for the main thread to find out by itself, and to end in order
CONNECT_S = 10.0


class Lifeline:
    """`mourn(rank, why)` is called in a thread when another process has ended too early; `why` is None after a kill."""

    def __init__(self, rank: int, mourn: Callable[[int, str | None], None]) -> None:
        self._rank, self._mourn = rank, mourn
        self._sockets: dict[int, socket.socket] = {}  # of the others' ranks; of 0 only, unless this is 0
        self._gone: set[int] = set()  # that have said farewell
        self._losses: list[dict[str, Any]] = []  # for those that are accepted later
        self._lock = threading.Lock()
        self._farewell: dict[str, Any] | None = None
        os.register_at_fork(after_in_child=self._let_go)  # a loader's worker that outlives this one would hold it open

    def _let_go(self) -> None:
        for connection in self._sockets.values():
            connection.close()

    # --- the first process -------------------------------------------------------------------------------------------

    def listen(self, address: str, port: int) -> dict[str, Any]:
        """Wait for the others; return what they need to find this process, which `address` is that of the store for."""
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        listener = socket.create_server(("", 0), family=family, backlog=1024, dualstack_ipv6=both)
        token = secrets.token_hex(16)
        threading.Thread(target=self._serve, args=(listener, token), daemon=True).start()
        addresses = dict.fromkeys([_own_address(address, port), address, socket.gethostname()])
        return {"addresses": [*addresses], "port": listener.getsockname()[1], "token": token}

    def _serve(self, listener: socket.socket, token: str) -> None:
        selector = selectors.DefaultSelector()
        selector.register(listener, selectors.EVENT_READ, None)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    _keep_alive(connection)
                    selector.register(connection, selectors.EVENT_READ, _Lines())
                else:
                    self._receive(selector, key.fileobj, key.data, token)

    def _receive(self, selector: selectors.BaseSelector, connection: Any, lines: _Lines, token: str) -> None:
        messages, is_open = lines.receive(connection)
        for message in messages:
            if message.get("token") == token:
                lines.rank = message["rank"]
                self._accept(message["rank"], connection, token)
            elif lines.rank is not None and "farewell" in message:
                self._gone.add(lines.rank)
                if message["farewell"] is not None:
                    self._lost(lines.rank, message["farewell"])
        if not is_open:
            selector.unregister(connection)
            connection.close()
            if lines.rank is not None:
                self._sockets.pop(lines.rank, None)
                if lines.rank not in self._gone:
                    self._lost(lines.rank, None)

    def _accept(self, rank: int, connection: socket.socket, token: str) -> None:
        """Who connects late hears what the others have heard: one of them may have died already."""
        with self._lock:  # a farewell comes before, and is told here, or after
            self._sockets[rank] = connection
            for message in ({"token": token}, *self._losses, *filter(None, [self._farewell])):
                _send(connection, message)

    def _lost(self, rank: int, why: str | None) -> None:
        self._losses.append({"lost": rank, "why": why})
        for other, connection in list(self._sockets.items()):
            if other != rank:
                _send(connection, self._losses[-1])
        threading.Thread(target=self._mourn, args=(rank, why), daemon=True).start()

    # --- the others --------------------------------------------------------------------------------------------------

    def connect(self, place: dict[str, Any]) -> None:
        """Raises OSError if the first process cannot be reached."""
        error: OSError = ConnectionError("no address leads to it")
        for address in place["addresses"]:
            try:
                connection = socket.create_connection((address, place["port"]), timeout=CONNECT_S)
                _keep_alive(connection)
                _send(connection, {"token": place["token"], "rank": self._rank})
                lines = _Lines()
                messages, is_open = lines.receive(connection)
                while is_open and not messages:  # half a line so far, or not ours
                    messages, is_open = lines.receive(connection)
                if [message.get("token") for message in messages[:1]] != [place["token"]]:
                    connection.close()  # somebody else's port: this machine's own name led here
                    continue
            except OSError as failure:
                error = failure
                continue
            connection.settimeout(None)
            self._sockets[0] = connection
            threading.Thread(target=self._listen, args=(connection, lines, messages[1:]), daemon=True).start()
            return
        raise error

    def _listen(self, connection: socket.socket, lines: _Lines, messages: list[dict[str, Any]]) -> None:
        """`messages` have come already, with the answer."""
        is_open = True
        while messages or is_open:
            for message in messages:
                if "lost" in message:
                    self._mourn(message["lost"], message["why"])
                elif message.get("farewell", "") is None:
                    self._gone.add(0)
                elif "farewell" in message:
                    self._mourn(0, message["farewell"])
            messages, is_open = lines.receive(connection) if is_open else ([], False)
        if 0 not in self._gone and self._farewell is None:
            self._mourn(0, None)

    # --- all ---------------------------------------------------------------------------------------------------------

    def farewell(self, why: str | None = None) -> None:
        """Tell the others that this process ends: in agreement with them, or for a reason that ends them, too."""
        with self._lock:
            if self._farewell is not None:
                return
            self._farewell = {"farewell": why}
            connections = list(self._sockets.values())
        for connection in connections:
            _send(connection, self._farewell)


class _Lines:
    """JSON lines as they come."""

    def __init__(self) -> None:
        self.rank: int | None = None
        self._rest = b""

    def receive(self, connection: socket.socket) -> tuple[list[dict[str, Any]], bool]:
        """What has come, and whether more may come. Waits for something."""
        try:
            received = connection.recv(65536)
        except OSError:  # reset, or given up by keepalive
            received = b""
        *whole, self._rest = (self._rest + received).split(b"\n")
        messages = []
        for line in whole:
            with contextlib.suppress(ValueError):  # whoever else speaks to this port
                message = json.loads(line)
                messages += [message] if isinstance(message, dict) else []
        return messages, bool(received)


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # its end is told by what receives
        connection.sendall(json.dumps(message).encode() + b"\n")


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        for option, value in zip(options, KEEPALIVE_S, strict=True):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)


def _own_address(address: str, port: int) -> str:
    """This machine's own in the network that leads to an address."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, port))  # sends nothing
        return probe.getsockname()[0]
    return socket.gethostname()


def end_now(exit_code: int) -> None:
    """End whatever the main thread waits for."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(exit_code)
