"""MAINPID of sd_notify(3): a program that forks, and says which process is the service from then on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from novad.core.spec import Probe, Stop
from novad.host import proc
from tests.novad.daemon.running import Client, Running

Eventually = Callable[[Callable[[], Any]], Any]

# The parent ends as soon as it has said who goes on, with all that a test wants of it.
FORKING = """
import os, signal, socket, sys
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as n:
        n.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
told, waited = os.pipe()
pid = os.fork()
if pid == 0:
    if "setsid" in sys.argv:
        os.setsid()
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(42))
    print("main", os.getpid(), flush=True)
    os.write(waited, b"x")
    while True:
        signal.pause()
os.read(told, 1)
say(f"MAINPID={pid}\\nREADY=1")
if "waits" in sys.argv:
    os.wait()
"""


def row(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.ask("status", names=["a"])["processes"][0]
    return found


def forking(daemon: Running, *words: str) -> Client:
    spec = daemon.spec(
        "a", sys.executable, "-c", FORKING, *words, ready=Probe(notify=True), stop=Stop(timeout_s=5.0)
    )
    return daemon.up(spec)


def main_pid(daemon: Running) -> int:
    return int(daemon.text("a")[-1].split()[1])


@pytest.mark.parametrize("words", [(), ("setsid",), ("waits",)])
def test_the_process_that_is_named_is_the_service(
    daemon: Running, eventually: Eventually, words: tuple[str, ...]
) -> None:
    client = forking(daemon, *words)
    first = main_pid(daemon)
    eventually(lambda: row(client)["pid"] == first)
    assert row(client)["state"] == "ready"
    assert row(client)["restarts"] == 0
    os.kill(first, signal.SIGUSR1)
    eventually(lambda: row(client)["restarts"] == 1 and row(client)["state"] == "ready")
    [why] = client.ask("why", names=["a"])["processes"]
    assert why["exits"][0]["exit_code"] == 42, (why, daemon.log("a"))
    assert why["exits"][0]["pid"] == first
    client.ask("stop")
    assert not daemon.live()


@pytest.mark.parametrize("words", [(), ("setsid",), ("waits",)])
def test_a_stop_ends_it_and_a_kill_of_the_daemon_does_not_lose_it(
    daemon: Running, eventually: Eventually, words: tuple[str, ...]
) -> None:
    client = forking(daemon, *words)
    pid = main_pid(daemon)
    eventually(lambda: row(client)["pid"] == pid)
    # The record is on the disk before anybody hears of the pid.
    assert daemon.process is not None
    daemon.process.kill()
    daemon.process.wait()
    assert daemon.start() == "ready"
    client = daemon.client()
    assert row(client)["pid"] == pid
    assert row(client)["note"] == "adopted"
    client.ask("stop")
    assert not daemon.live()
    assert not proc.is_alive(pid)


def test_only_a_process_of_the_service_itself_can_be_named(daemon: Running, eventually: Eventually) -> None:
    program = """
import os, socket, sys, time
n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for pid in sys.argv[1:]:
    n.sendto(f"MAINPID={pid}".encode(), os.environ["NOTIFY_SOCKET"])
n.sendto(b"READY=1\\nSTATUS=said", os.environ["NOTIFY_SOCKET"])
time.sleep(600)
"""
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            pids = ["0", "1", "-1", "999999999", "x", str(stranger.pid), str(os.getpid())]
            client = daemon.up(daemon.spec("a", sys.executable, "-c", program, *pids, ready=Probe(notify=True)))
            pid = row(client)["pid"]
            assert row(client)["status_text"] == "said"
            assert proc.stat(pid).parent == daemon.process.pid  # type: ignore[union-attr]
            refused = [line for line in daemon.text("a", "n") if "MAINPID" in line]
            assert len(refused) == len(pids), refused
            client.ask("stop")
            assert stranger.poll() is None
        finally:
            stranger.kill()
