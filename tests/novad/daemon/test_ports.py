"""Ports between two lives of a process: held, handed over, passed; and who has a busy one."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from novad.core.spec import Backoff, Port, Probe, to_json
from novad.host import proc

Eventually = Callable[[Callable[[], Any]], Any]

SERVE = """
import os, socket, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    s.accept()[0].close()
"""

SERVE_PASSED = """
import os, socket
assert int(os.environ["LISTEN_PID"]) == os.getpid() and os.environ["LISTEN_FDNAMES"] == "http"
s = socket.socket(fileno=3)
print("serving", s.getsockname()[1], flush=True)
while True:
    c, _ = s.accept()
    c.sendall(str(os.getpid()).encode())
    c.close()
"""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    return int(number)


def can_bind(number: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", number))
        except OSError:
            return False
        return True


def test_the_port_of_a_stopped_process_is_held_for_it(daemon: Any, port: int) -> None:
    spec = daemon.spec("a", sys.executable, "-c", SERVE, str(port), ports={"http": Port(port)},
                       ready=Probe(log="listening"))  # fmt: skip
    client = daemon.up(spec)
    client.ask("stop")
    assert not can_bind(port)
    client.ask("start", names=["a"])
    assert client.ask("wait", **{"for": "ready"}) == {"met": True}
    client.ask("down")
    daemon.process.wait(10)
    assert can_bind(port)


def test_the_owner_of_a_busy_port_is_named_and_a_port_that_gets_free_is_used(
    daemon: Any, port: int, eventually: Eventually
) -> None:
    spec = daemon.spec("a", sys.executable, "-c", SERVE, str(port), ports={"http": Port(port)},
                       ready=Probe(log="listening"), backoff=Backoff(0.05, 0.1))  # fmt: skip
    with socket.create_server(("127.0.0.1", port)):
        daemon.start()
        client = daemon.client()
        client.ask("up", cluster=to_json(daemon.cluster(spec)))
        assert client.ask("wait", **{"for": "ready"})["met"] is False
        note = client.ask("status")["processes"][0]["note"]
        assert f"port {port} (http) is taken by pid {os.getpid()} (" in note
    client.ask("start", names=["a"])
    assert client.ask("wait", **{"for": "ready"}) == {"met": True}


def test_a_passed_socket_refuses_nobody_while_its_server_is_replaced(
    daemon: Any, port: int, eventually: Eventually
) -> None:
    spec = daemon.spec("a", sys.executable, "-c", SERVE_PASSED, ports={"http": Port(port, listen=True)},
                       ready=Probe(log="serving"), backoff=Backoff(reset_after_s=0))  # fmt: skip
    client = daemon.up(spec)

    def ask() -> int:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            return int(sock.recv(64))

    pids = {ask()}
    for _ in range(5):
        pid = client.ask("status")["processes"][0]["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda dead=pid: not proc.is_alive(dead))
        # Connects while nobody may be serving; the answer comes from the successor.
        pids.add(ask())
    assert len(pids) == 6
    assert client.ask("status")["processes"][0]["restarts"] == 5
