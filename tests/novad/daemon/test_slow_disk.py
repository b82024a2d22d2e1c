"""A disk that does not take what it is given: nobody but its own file waits for it.

The disk is a FIFO in the place of a log: opening it for writing hangs until somebody reads.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from novad.core.spec import Log, ProcessSpec, to_json
from tests.novad.daemon.running import Client, Running

Eventually = Callable[[Callable[[], Any]], Any]
LINES = 500_000
STAMP = "2026-11-23T17:01:02.123456Z o "


def _hung(daemon: Running, name: str, drop: bool) -> Log:
    os.makedirs(daemon.place.log_dir, exist_ok=True)
    path = f"{daemon.place.log_dir}/{name}.log"
    os.mkfifo(path)
    return Log(path, max_bytes=1 << 40, drop=drop)


def _start(daemon: Running, spec: ProcessSpec) -> Client:
    assert daemon.start() == "ready"
    client = daemon.client()
    client.ask("up", cluster=to_json(daemon.cluster(spec)))
    return client


def _read_on(fd: int, until: str) -> list[str]:
    """All lines from the FIFO up to the one that ends with `until`; fails after a minute."""
    data, deadline_s = b"", time.monotonic() + 60
    os.set_blocking(fd, False)
    while until.encode() not in data:
        assert time.monotonic() < deadline_s, data[-300:]
        try:
            data += os.read(fd, 1 << 20)
        except BlockingIOError:
            time.sleep(0.001)
    return data.decode().splitlines()


def test_a_hung_disk_holds_up_neither_answers_nor_restarts(daemon: Running, eventually: Eventually) -> None:
    client = daemon.up(
        daemon.spec("a", "sh", "-c", "echo hello; exec sleep 100", log=_hung(daemon, "a", drop=False)),
        daemon.spec("b", "sleep", "100"),
    )
    took_s = []
    for _ in range(50):
        began_s = time.monotonic()
        rows = client.ask("status")["processes"]
        took_s.append(time.monotonic() - began_s)
    assert sorted(took_s)[45] < 1.0, took_s
    pid = {row["name"]: row["pid"] for row in rows}["b"]
    os.kill(pid, signal.SIGKILL)

    def successor() -> int | None:
        row = client.ask("status", names=["b"])["processes"][0]
        return row["pid"] if row["state"] == "ready" and row["pid"] != pid else None

    assert eventually(successor)
    disk = client.ask("status")["daemon"]["disk"]
    assert disk["late_s"] > 0, disk
    assert disk["waiting"] > 0, disk


def test_a_log_that_drops_never_makes_its_process_wait(daemon: Running) -> None:
    log = _hung(daemon, "a", drop=True)
    ended = Path(daemon.place.dir) / "ended"
    os.mkfifo(ended)
    spec = daemon.spec("a", "sh", "-c", f"seq {LINES}; echo > {ended}; echo last line", oneshot=True, log=log)
    _start(daemon, spec)
    # The process gets to its end while nobody has taken a byte of its log.
    assert ended.read_text() == "\n"
    fd = os.open(log.path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        lines = _read_on(fd, " n exit 0 after")
    finally:
        os.close(fd)
    written = [line[len(STAMP) :] for line in lines if line[len(STAMP) - 2] == "o"]
    lost = sum(
        int(count) for line in lines for count in re.findall(r" n (\d+) lines? lost: the disk is too slow", line)
    )
    assert lost > 0
    assert len(written) + lost == LINES + 1


def test_a_log_that_keeps_everything_makes_its_process_wait(daemon: Running, eventually: Eventually) -> None:
    log = _hung(daemon, "a", drop=False)
    spec = daemon.spec("a", "sh", "-c", f"seq {LINES}; echo last line", oneshot=True, log=log)
    client = _start(daemon, spec)
    row = client.ask("status", names=["a"])["processes"][0]

    def is_held() -> bool:
        where = [Path(f"/proc/{pid}/wchan").read_text() for pid in _writers(row["pid"])]
        return any("pipe" in place for place in where)

    assert eventually(is_held)
    fd = os.open(log.path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        lines = _read_on(fd, " n exit 0 after")
    finally:
        os.close(fd)
    written = [line[len(STAMP) :] for line in lines if line[len(STAMP) - 2] == "o"]
    assert written == [*map(str, range(1, LINES + 1)), "last line"]


def _writers(pid: int) -> list[int]:
    kids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, kids)]
