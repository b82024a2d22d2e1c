"""A scripted daemon on a real unix socket, and values as the daemon sends them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from novad.core.errors import NovadError
from novad.core.place import Place
from novad.core.wire import Decoder, Error, Event, Frame, Reply, Request, encode

Answer = dict[str, Any] | Error | NovadError
Script = Callable[[Request], Answer | list[Frame] | None]


def process(name: str, state: str = "ready", **more: Any) -> dict[str, Any]:
    """A process value as the daemon sends it."""
    service, _, replica = name.rpartition(".")
    value: dict[str, Any] = dict.fromkeys(
        ("exit_code", "signal", "cpu_percent", "rss_bytes", "note", "ready_in_s", "retry_in_s", "status_text",
         "url", "log", "uptime_s", "pid")
    )  # fmt: skip
    value |= {
        "name": name,
        "service": service if replica.isdigit() else name,
        "replica": int(replica) if replica.isdigit() else 1,
        "state": state,
        "want": "up",
        "restarts": 0,
        "ports": {},
        "waiting_for": [],
    }
    return value | more


def document(*processes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A status document."""
    daemon = {"pid": 4000, "version": "0.1.0", "uptime_s": 724.0}
    return {
        "schema": 1,
        "project": "shop",
        "namespace": "default",
        "config": "/src/shop/nova.toml",
        "daemon": daemon,
        "processes": list(processes),
    } | more


@dataclass
class FakeDaemon:
    """Answers requests by `answers`: verb -> result, error, or a function of the request. Remembers them all."""

    place: Place
    answers: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        Path(self.place.run_dir).mkdir(parents=True, exist_ok=True)
        self._listener.bind(self.place.socket)
        self._listener.listen(16)
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()
        self._thread.join(5)
        Path(self.place.socket).unlink(missing_ok=True)

    def verbs(self) -> list[str]:
        return [request.verb for request in self.requests]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        decoder = Decoder()
        while True:
            try:
                data = connection.recv(65536)
                if not data:
                    return
                for request in decoder.feed(data):
                    assert isinstance(request, Request)
                    self.requests.append(request)
                    # In one piece: whoever has the answer can read what follows it, even after `close`.
                    connection.sendall(b"".join(encode(frame) for frame in self._answer(request)))
            except OSError:
                return

    def _answer(self, request: Request) -> list[Frame]:
        answer = self.answers.get(request.verb, NovadError(f"unknown verb {request.verb}"))
        if callable(answer):
            answer = answer(request)
        if answer is None:
            return []
        if isinstance(answer, NovadError):
            answer = Error(request.id, answer.code, answer.message, answer.hint)
        if isinstance(answer, dict):
            answer = Reply(request.id, answer)
        return answer if isinstance(answer, list) else [answer]


def subscription(*events: dict[str, Any], **snapshot: Any) -> Script:
    """The answer to `subscribe`: a snapshot, then the events."""

    def answer(request: Request) -> list[Frame]:
        first = {"processes": [], "offsets": {}} | snapshot
        return [Reply(request.id, first), *(Event(request.id, event) for event in events)]

    return answer
