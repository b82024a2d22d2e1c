"""The template alone: what it does with an order that nobody waits for any more."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from novad.host.template import BOOT, PROGRAM, ROOM

DEADLINE_S = 20.0


class Forker:
    """A template with its socket in the hands of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(DEADLINE_S)
        env = {"PATH": os.environ["PATH"], ROOM: "-" * 4096}
        argv = [sys.executable, "-c", BOOT, PROGRAM, str(theirs.fileno()), "json", " " * 512]
        self.process = subprocess.Popen(argv, env=env, cwd=folder, pass_fds=[theirs.fileno()])
        theirs.close()

    def said(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv(65536))
        return message

    def order(self, target: str, **changes: Any) -> int:
        """Send an order; returns the descriptor that says `go`."""
        go_read, go_write = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        order = {
            "id": 1, "name": "a", "target": target, "args": [], "argv": [sys.executable, "-m", target],
            "env": {"NOVAD_ID": "here/a/1"}, "cwd": str(self.folder), "limits": [], "nice": 0,
        }  # fmt: skip
        socket.send_fds(self.socket, [json.dumps(order | changes).encode()], [go_read, null, null, null])
        os.close(go_read)
        os.close(null)
        return go_write


@pytest.fixture
def forker(tmp_path: Path) -> Iterator[Forker]:
    (tmp_path / "svc.py").write_text("open('began', 'w').close()")
    made = Forker(tmp_path)
    assert made.said() == {"ready": True}
    yield made
    made.socket.close()
    made.process.wait(DEADLINE_S)


def ends(pidfd: int) -> bool:
    """Whether the process ends within the deadline."""
    try:
        return bool(select.select([pidfd], [], [], DEADLINE_S)[0])
    finally:
        os.close(pidfd)


def test_a_service_begins_when_it_may(forker: Forker) -> None:
    go = forker.order("svc")
    pidfd = os.pidfd_open(forker.said()["pid"])
    assert not (forker.folder / "began").exists()
    os.write(go, b"g")
    os.close(go)
    assert ends(pidfd)
    assert (forker.folder / "began").exists()


def test_a_service_that_nobody_waits_for_any_more_never_begins(forker: Forker) -> None:
    go = forker.order("svc")
    pidfd = os.pidfd_open(forker.said()["pid"])
    os.close(go)
    assert ends(pidfd)
    assert not (forker.folder / "began").exists()


def test_a_service_that_cannot_be_prepared_is_an_answer_and_the_next_one_works(forker: Forker) -> None:
    os.close(forker.order("svc", cwd="/nowhere/at/all"))
    assert "FileNotFoundError" in forker.said()["error"]
    go = forker.order("svc")
    pidfd = os.pidfd_open(forker.said()["pid"])
    os.write(go, b"g")
    os.close(go)
    assert ends(pidfd)


def test_a_template_keeps_no_descriptor_of_an_order(forker: Forker) -> None:
    before = sorted(os.listdir(f"/proc/{forker.process.pid}/fd"))
    for _ in range(3):
        os.close(forker.order("svc"))
        forker.said()
    assert sorted(os.listdir(f"/proc/{forker.process.pid}/fd")) == before


def test_a_template_ends_with_its_socket(forker: Forker) -> None:
    forker.socket.close()
    assert forker.process.wait(DEADLINE_S) == 0


def test_what_does_not_fit_into_proc_is_left_out_after_the_mark(forker: Forker) -> None:
    env = {"NOVAD_ID": "here/a/1", "LONG": "y" * 100_000, "SHORT": "x"}
    go = forker.order("svc", env=env)
    pid = forker.said()["pid"]
    shown = Path(f"/proc/{pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
    pidfd = os.pidfd_open(pid)
    os.close(go)
    assert shown == [b"NOVAD_ID=here/a/1", b"SHORT=x"]
    assert ends(pidfd)
