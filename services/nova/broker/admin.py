"""Asking a running broker what it does: a unix socket beside its journal, and the client for it.

One JSON line each way: `{"list": "queues"}` is answered by `{"rows": [...]}` or `{"error": "..."}`. The socket is
open to its owner alone (mode 0600 in a folder of mode 0700), so there is no password.

    admin.ask("nova-state", "queues", interval_s=1.0)     rows with rates
    curl --unix-socket nova-state/broker/admin http://x/metrics
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from nova import exposition
from nova.broker import report
from nova.broker.broker import Broker
from nova.broker.output import Output
from nova.broker.report import Row

SOCKET = "admin"
MAX_REQUEST_BYTES = 4096
TIMEOUT_S = 10.0


class AdminError(Exception):
    """The broker cannot be asked, or does not understand; the message says which one and why."""


class AdminConnection:
    """The broker's side; a `loop.Peer`."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.is_finished = False
        self.is_abandoned = False
        self.is_paused = False
        self.output = Output(self._on_output, self._on_drained)
        self._input = b""

    def _on_output(self) -> None:
        self.broker.dirty.append(self)

    def _on_drained(self) -> None:
        """It is read again, and nothing else was waiting for that."""

    def feed(self, data: bytes) -> None:
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            if line.startswith(b"GET "):
                self._answer_http(line)
            if self.is_finished:
                return  # what follows are the request's headers
            self._send(self._answer(line))
        if len(self._input) > MAX_REQUEST_BYTES:
            self._send({"error": f"a request has at most {MAX_REQUEST_BYTES} bytes"})
            self.is_finished = True

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except ValueError:
            return {"error": "not a line of JSON"}
        kind = request.get("list") if isinstance(request, dict) else None
        if not isinstance(kind, str) or kind not in report.KINDS:
            return {"error": f"cannot list {kind!r}; there are {', '.join(report.KINDS)}"}
        return {"rows": report.KINDS[kind](self.broker)}

    def _answer_http(self, line: bytes) -> None:
        """Just enough of HTTP for curl and a scraper behind it."""
        is_known = line.split()[1:2] == [b"/metrics"]
        body = exposition.text(report.samples(self.broker)) if is_known else "there is /metrics\n"
        head = (
            f"HTTP/1.1 {'200 OK' if is_known else '404 Not Found'}\r\n"
            "Content-Type: text/plain; version=0.0.4\r\n"
            f"Content-Length: {len(body.encode())}\r\nConnection: close\r\n\r\n"
        )
        self.output.add((head + body).encode())
        self.is_finished = True

    def _send(self, answer: dict[str, Any]) -> None:
        self.output.add(json.dumps(answer, default=str).encode() + b"\n")

    def crash(self, error: Exception) -> None:
        self._send({"error": f"{type(error).__name__}: {error}"})
        self.is_finished = True

    def lost(self) -> None:
        self.is_finished = True


def listen(folder: Path, sockets: ModuleType = socket) -> socket.socket:
    """The broker's listener in its folder, whose lock the caller holds. Raises `OSError`."""
    listener: socket.socket = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    with _short_path(folder) as path:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # of a broker that was killed: only the lock's holder comes here
        listener.bind(path)
        os.chmod(path, 0o600)
    listener.listen(16)
    return listener


def ask(state_path: str | Path, kind: str, interval_s: float = 0.0) -> list[Row]:
    """The rows of one kind (`report.KINDS`) from the broker whose state is in `state_path`.

    With `interval_s` queues and exchanges are asked for twice, so far apart, and rates are added. Raises
    `AdminError`.
    """
    folder = Path(state_path) / "broker"
    try:
        with _connect(folder) as link:
            rows = _request(link, kind)
            if interval_s and kind in ("queues", "exchanges"):
                asked_s = time.monotonic()
                time.sleep(interval_s)
                again = _request(link, kind)
                rows = report.rates(rows, again, time.monotonic() - asked_s)
    except OSError as error:
        raise AdminError(f"{folder / SOCKET}: {error.strerror or error}: is nova-broker running?") from error
    return rows


def _connect(folder: Path) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(TIMEOUT_S)
    try:
        with _short_path(folder) as path:
            link.connect(path)
    except OSError:
        link.close()
        raise
    return link


def _request(link: socket.socket, kind: str) -> list[Row]:
    link.sendall(json.dumps({"list": kind}).encode() + b"\n")
    pieces: list[bytes] = []
    while not pieces or not pieces[-1].endswith(b"\n"):
        piece = link.recv(65536)
        if not piece:
            raise AdminError("the broker closed the connection")
        pieces.append(piece)
    answer = json.loads(b"".join(pieces))
    if "error" in answer:
        raise AdminError(answer["error"])
    rows: list[Row] = answer["rows"]
    return rows


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """The socket's path by way of an open folder: an AF_UNIX path has at most 107 bytes (unix(7))."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)
