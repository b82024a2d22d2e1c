"""Harm for as long as its client lives: a deaf port, a full log, a frozen process; and no longer."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from novad.core.spec import Port, Probe
from tests.novad.daemon.running import Refused
from tests.system import oracle

Eventually = Callable[[Callable[[], Any]], Any]

# Writes every line into its log before it answers it; with `listen` on a socket that it was given.
ECHO = """
import os, socket, sys, threading
port = int(sys.argv[1])
server = socket.socket(fileno=3) if os.environ.get("LISTEN_FDS") else socket.create_server(("127.0.0.1", port))
def serve(client):
    for line in client.makefile():
        print("heard", line.strip(), flush=True)
        client.sendall(line.encode())
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()
"""
DEAF_S = 0.3


class Guest:
    """A connection to the service."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), DEAF_S)

    def say(self, word: str) -> None:
        self._socket.settimeout(20.0)
        self._socket.sendall(word.encode() + b"\n")

    def hear(self, seconds: float = 20.0) -> str:
        """The next answer. Raises `TimeoutError`."""
        self._socket.settimeout(seconds)
        return self._socket.recv(4096).decode().strip()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    return int(number)


@pytest.fixture
def guests(port: int) -> Iterator[Callable[[], Guest]]:
    made: list[Guest] = []

    def visit() -> Guest:
        made.append(Guest(port))
        return made[-1]

    yield visit
    for guest in made:
        guest.close()


def echo(daemon: Any, port: int, **fields: Any) -> Any:
    return daemon.spec(
        "echo", sys.executable, "-c", ECHO, str(port), ready=Probe(log="listening"),
        **{"ports": {"tcp": Port(port)}, **fields},
    )  # fmt: skip


def ready(client: Any) -> None:
    client.ask("wait", names=["echo"], **{"for": "ready"})


def test_a_deaf_port_answers_nobody_and_goes_on_afterwards(
    daemon: Any, port: int, guests: Callable[[], Guest]
) -> None:
    client = daemon.up(echo(daemon, port))
    ready(client)
    guest = guests()
    guest.say("one")
    assert guest.hear() == "one"
    client.ask("harm", names=["echo"], kind="drop-port")
    guest.say("two")
    with pytest.raises(TimeoutError):
        guest.hear(DEAF_S)
    with pytest.raises(TimeoutError):
        guests()
    assert client.ask("harm", names=["echo"], kind="drop-port", undo=True)["names"] == ["echo"]
    assert guest.hear() == "two"
    late = guests()
    late.say("three")
    assert late.hear() == "three"


def test_a_client_that_is_gone_leaves_no_port_deaf(daemon: Any, port: int, guests: Callable[[], Guest]) -> None:
    client = daemon.up(echo(daemon, port))
    ready(client)
    guest = guests()
    # What is answered is accepted.
    guest.say("zero")
    assert guest.hear() == "zero"
    other = daemon.client()
    other.ask("harm", names=["echo"], kind="drop-port")
    guest.say("one")
    with pytest.raises(TimeoutError):
        guest.hear(DEAF_S)
    other.close()
    assert guest.hear() == "one"


@pytest.mark.parametrize("listen", [False, True])
def test_what_is_started_meanwhile_hears_or_hears_at_the_end(
    daemon: Any, port: int, guests: Callable[[], Guest], listen: bool
) -> None:
    """A socket that novad holds outlives the child, and so does its filter."""
    client = daemon.up(echo(daemon, port, ports={"tcp": Port(port, listen=listen)}))
    ready(client)
    client.ask("harm", names=["echo"], kind="drop-port")
    client.ask("restart", names=["echo"])
    ready(client)
    if listen:
        with pytest.raises(TimeoutError):
            guests()
        client.ask("harm", names=["echo"], undo=True)
    guest = guests()
    guest.say("one")
    assert guest.hear() == "one"


def test_a_full_log_loses_lines_counts_them_and_stops_nobody(
    daemon: Any, port: int, guests: Callable[[], Guest], eventually: Eventually
) -> None:
    client = daemon.up(echo(daemon, port))
    ready(client)
    log, listener = Path(daemon.place.log_dir, "echo.log"), daemon.client()
    listener.ask("subscribe", states=False, lines=["echo"])
    guest = guests()
    client.ask("harm", names=["echo"], kind="fill-log")
    eventually(lambda: "drill fill-log" in log.read_text())
    before = log.read_bytes()
    heard = ""
    for word in ("one", "two", "three"):
        guest.say(word)
        assert guest.hear() == word
        while f"heard {word}" not in heard:
            event = listener.event()
            heard += event.get("text", "") if event["type"] == "lines" else ""
    assert log.read_bytes() == before
    client.ask("harm", names=["echo"], kind="fill-log", undo=True)
    guest.say("four")
    while "heard four" not in heard:
        heard += listener.event().get("text", "")
    # Lines are told as they come, and are in the file a moment later.
    eventually(lambda: "heard four" in log.read_text())
    added = log.read_text()[len(before) :]
    # Three lines, and novad's own word on the undo where that came before it.
    assert re.search(r"n [34] lines lost: ", added)
    assert "No space left on device" in added
    assert "heard three" not in added


def test_a_client_that_is_gone_leaves_nobody_frozen(daemon: Any, port: int, eventually: Eventually) -> None:
    client = daemon.up(echo(daemon, port))
    ready(client)
    pid = client.ask("status")["processes"][0]["pid"]
    other = daemon.client()
    other.ask("harm", names=["echo"], kind="freeze")
    eventually(lambda: getattr(oracle.look(pid), "state", "") == "T")
    other.close()
    eventually(lambda: getattr(oracle.look(pid), "state", "") in ("S", "R"))


def test_what_cannot_be_done_is_said(daemon: Any, port: int) -> None:
    sleeper = daemon.spec("sleeper", "sleep", "600")
    liar = daemon.spec("liar", "sleep", "600", ports={"tcp": Port(port)})
    client = daemon.up(sleeper, liar)
    for name, kind, words in (
        ("sleeper", "drop-port", "no port that novad knows"),
        ("liar", "drop-port", f"no socket on port {port}"),
        ("sleeper", "melt", "one of drop-port, fill-log, freeze"),
    ):
        with pytest.raises(Refused) as refused:
            client.ask("harm", names=[name], kind=kind)
        assert words in " ".join(map(str, refused.value.args))
    client.ask("harm", names=["sleeper"], kind="freeze")
    with pytest.raises(Refused) as refused:
        daemon.client().ask("harm", names=["sleeper"], kind="freeze")
    assert "already" in str(refused.value.args)
    assert daemon.client().ask("harm", names=["sleeper"], undo=True)["names"] == []
    client.ask("stop", names=["sleeper"])
    with pytest.raises(Refused):
        client.ask("harm", names=["sleeper"], kind="fill-log")
