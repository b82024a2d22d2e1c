"""Clients and children that do what nobody should: they lose their connection, or nothing; the daemon goes on."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from novad.core import wire
from novad.core.spec import to_json
from novad.host.control import FRAME_S
from tests.novad.daemon.running import Refused

SLEEP = ("sleep", "600")


def line(verb: str, args: str) -> bytes:
    """A request as text: what `json` would not write."""
    return f'{{"v": 1, "id": 1, "verb": "{verb}", "args": {args}}}\n'.encode()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_ends_the_connection_and_nothing_else(daemon: Any, number: str) -> None:
    client = daemon.up(daemon.spec("a", *SLEEP))
    bad = daemon.client()
    bad.raw(line("stop", f'{{"timeout_s": {number}}}'))
    assert bad.is_cut_off()
    assert client.ask("status")["processes"][0]["state"] == "ready"


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("stop", {"timeout_s": 10**400}),
        ("stop", {"names": ["a" * 300]}),
        ("stop", {"names": ["a"] * 5000}),
        ("signal", {"signal": "²"}),
        ("reload", {"cluster": {"schema": 10**400}}),
        ("no_such_verb", {}),
    ],
)
def test_an_argument_without_measure_is_refused(daemon: Any, verb: str, args: dict[str, Any]) -> None:
    client = daemon.up(daemon.spec("a", *SLEEP))
    with pytest.raises(Refused) as refused:
        client.ask(verb, **args)
    assert "novad failed" not in refused.value.args[1]
    assert client.ask("status")["processes"][0]["state"] == "ready"


def test_fg_without_a_cluster_is_refused(daemon: Any) -> None:
    daemon.start()
    with pytest.raises(Refused, match="usage"):
        daemon.client().ask("fg")
    assert daemon.client().ask("ping")


def test_a_number_that_is_none_in_a_notification_is_ignored(daemon: Any) -> None:
    texts = ("EXTEND_TIMEOUT_USEC=\xb2", "WATCHDOG_USEC=" + "9" * 400, "\xff" * 10, "", "STATUS=still heard")
    program = (
        "import os, socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        f"for text in {texts!r}: s.sendto(text.encode(), os.environ['NOTIFY_SOCKET'])\n"
        "time.sleep(600)"
    )
    client = daemon.up(daemon.spec("a", "sleep", "0"))
    watcher = daemon.client()
    watcher.ask("subscribe")
    loud = daemon.cluster(daemon.spec("b", sys.executable, "-c", program))
    client.send("reload", cluster=to_json(loud))
    while watcher.event().get("status_text") != "still heard":
        pass


def test_who_says_nothing_is_cut_off_and_who_asked_once_may_wait(daemon: Any) -> None:
    client = daemon.up(daemon.spec("a", *SLEEP))
    silent, half = daemon.client(), daemon.client()
    half.raw(b'{"v": 1, "id"')
    began_s = time.monotonic()
    assert silent.is_cut_off()
    assert half.is_cut_off()
    assert FRAME_S - 1.0 <= time.monotonic() - began_s <= FRAME_S + 2.0
    assert client.ask("ping")


def test_who_asks_without_end_and_takes_no_answer_is_held_up_then_cut_off(daemon: Any) -> None:
    client = daemon.up(*(daemon.spec(f"a.{number}", *SLEEP) for number in range(20)))
    greedy = daemon.client()
    greedy._socket.setblocking(False)
    request = wire.encode(wire.Request(1, "status")) * 100
    began_s, sent = time.monotonic(), 0
    slowest_s = 0.0
    try:
        while time.monotonic() - began_s < FRAME_S + 3.0:
            try:
                sent += greedy._socket.send(request)
            except BlockingIOError:
                asked_s = time.monotonic()
                client.ask("status")
                slowest_s = max(slowest_s, time.monotonic() - asked_s)
        pytest.fail("it was never cut off")
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert time.monotonic() - began_s > FRAME_S - 1.0
    # Its answers are kept up to a limit, and its questions not at all.
    assert sent < 4 * 1024 * 1024
    assert slowest_s < 0.5


def test_many_requests_in_one_piece_are_all_answered_in_order(daemon: Any) -> None:
    daemon.up(daemon.spec("a", *SLEEP))
    client = daemon.client()
    client.raw(b"".join(wire.encode(wire.Request(number, "status")) for number in range(1, 5001)))
    seen = []
    while len(seen) < 5000:
        seen.append(client.frame().id)
    assert seen == list(range(1, 5001))
