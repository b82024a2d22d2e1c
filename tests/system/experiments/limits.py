"""No descriptors left, no processes left, no room left: novad goes on, and says what it could not do."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.novad.daemon.running import Client
from tests.system import oracle
from tests.system.board import Skip, experiment, quantile, require, spread_ms, until
from tests.system.site import UNTIRING, Site
from tests.system.tracing import tampered


@experiment(
    "R13",
    "no descriptors left in novad, with a hundred clients and ten deaths",
    short={"seconds": 1.0, "clients": 100, "deaths": 10, "room": 3},
    full={"seconds": 20.0, "clients": 100, "deaths": 10, "room": 3},
    controls={"a limit below what is in use, not lifted": {"room": -40, "lift": False}},
)
def no_descriptors(site: Site, seconds: float, clients: int, deaths: int, room: int, lift: bool = True) -> str:
    """Only `room` may be opened; afterwards everything works again within a second."""
    names = {f"v{number}" for number in range(deaths)}
    client = site.up(*(site.sleeper(name, **UNTIRING) for name in names))
    pids = {name: ring.pid for name, ring in site.bell.await_all(names, 5).items()}
    limits = resource.prlimit(site.pid, resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir(f"/proc/{site.pid}/fd"))
    resource.prlimit(site.pid, resource.RLIMIT_NOFILE, (highest + 1 + room, limits[1]))
    sockets = [_connect(site) for _ in range(clients)]
    cpu_s = oracle.cpu_s(site.pid)
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    site.bell.hear_for(seconds)
    share = (oracle.cpu_s(site.pid) - cpu_s) / seconds
    require(oracle.look(site.pid) is not None, "novad runs")
    if lift:
        resource.prlimit(site.pid, resource.RLIMIT_NOFILE, limits)
        for sock in sockets:
            sock.close()
    began_s = time.monotonic()
    until(lambda: site.leaders().keys() == names, 2.0, "every child is back")
    back_s = time.monotonic() - began_s
    began_s = time.monotonic()
    rows = site.client().ask("status")["processes"]
    answer_s = time.monotonic() - began_s
    require(len(rows) == deaths, "status of all")
    client.ask("ping")
    require(answer_s <= 1.0, f"an answer within 1 s: {answer_s:.2f} s")
    require(share <= 0.2 or seconds < 5, f"CPU <= 20 %: {share:.0%}")
    require(not site.doubled(), f"doubled: {site.doubled()}")
    figures = f"back in {back_s:.2f} s, answer {answer_s * 1000:.0f} ms, CPU {share:.0%}"
    return f"{clients} clients, {deaths} deaths: {figures}"


def _connect(site: Site) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(1.0)
    try:
        sock.connect(site.running.place.socket)
    except OSError:
        # The backlog is full: novad sheds, which is its right.
        pass
    return sock


# Whichever the C library takes for a fork, and what it falls back to.
FORKS = ("vfork", "fork", "clone", "clone3")


@experiment(
    "R12",
    "nothing can be forked while ten children die, two of them preloaded",
    short={"seconds": 6.0, "answer_s": 0.5, "back_s": 3.0},
    full={"seconds": 20.0, "answer_s": 0.1, "back_s": 2.0},
    controls={
        "a service that is not restarted": {"seconds": 1.0, "fields": {"restart": "no"}},
        "a death that nobody caused": {"seconds": 1.0, "extra": 1},
    },
)
def no_processes(
    site: Site, seconds: float, answer_s: float, back_s: float, fields: Any = None, extra: int = 0
) -> str:
    """With the restart policy that a service has by default. A fork fails in turn with EAGAIN and ENOMEM."""
    names = {f"v{number}" for number in range(10)}
    specs = [site.preloaded(name, **(fields or {})) if name in ("v0", "v1") else site.sleeper(name, **(fields or {}))
             for name in sorted(names)]  # fmt: skip
    site.start()
    client = site.client()
    client.ask("up", cluster=site.cluster(*specs) | {"preload": ["json"]})
    client.ask("wait", **{"for": "ready"})
    pids = {name: ring.pid for name, ring in site.bell.await_all(names, 5).items()}
    template = [seen.pid for seen in site.live() if seen.command.startswith("novad template")]
    require(len(template) == 1, f"two services are preloaded: {template}")
    took_s: list[float] = []
    for error in ("EAGAIN", "ENOMEM"):
        with tampered([site.pid, *template], FORKS, f"error={error}"):
            for pid in pids.values():
                os.kill(pid, signal.SIGKILL)
            took_s += _answers(site, client, seconds / 2)
            require(not site.leaders(), f"nothing can be forked: {sorted(site.leaders())}")
        began_s = time.monotonic()
        found = site.bell.await_all(names, back_s)
        lifted_s = time.monotonic() - began_s
        require(found.keys() == names, f"all back within {back_s:g} s of {error}: missing {names - found.keys()}")
        _expect_exits(site, list(pids.values()) + [0] * extra)
        pids = {name: ring.pid for name, ring in found.items()}
    require(not site.doubled(), f"two live instances: {site.doubled()}")
    p99_s = quantile(took_s, 0.99)
    require(p99_s <= answer_s, f"an answer within {answer_s * 1000:g} ms: {spread_ms(took_s)}")
    figures = f"{len(took_s)} answers {spread_ms(took_s)}, last back in {lifted_s:.2f} s"
    return f"2 x {seconds / 2:g} s without a fork, 20 deaths, 0 exits lost, {figures}"


def _answers(site: Site, client: Client, seconds: float) -> list[float]:
    """How long each of many answers takes; ten a second, from a new connection every time and from an old one."""
    took_s, until_s = [], time.monotonic() + seconds
    while time.monotonic() < until_s:
        for ask in (client.ask, site.client().ask):
            began_s = time.monotonic()
            ask("status")
            took_s.append(time.monotonic() - began_s)
        site.bell.hear(0.1)
    return took_s


def _expect_exits(site: Site, pids: list[int]) -> None:
    """Each pid has ended once, by SIGKILL, and the journal has it."""
    lines = Path(f"{site.running.place.state_dir}/journal.jsonl").read_text().splitlines()
    exits = [item for item in map(json.loads, lines) if item["type"] == "exit"]
    for pid in pids:
        seen = [item["signal"] for item in exits if item["pid"] == pid]
        require(seen == [signal.SIGKILL], f"pid {pid} ended by SIGKILL, and the journal has it once: {seen}")


# Numbered lines, each with the time that its write took: a child that is blocked by a full disk says so itself.
WRITER = """
import os, sys, time
worst = 0.0
for number in range(10**9):
    began = time.monotonic()
    os.write(1, b"%d %s\\n" % (number, b"x" * 90))
    worst = max(worst, time.monotonic() - began)
    if number % 50 == 0:
        with open(sys.argv[1] + ".new", "w") as file:
            file.write("%d %f" % (number, worst))
        os.replace(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(0.0005)
"""


def _mount(folder: Path) -> None:
    """A disk of 64 kB at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        raise Skip(f"no tmpfs: {mounted.stderr.decode().strip()}")


def _fill(folder: Path) -> Callable[[], None]:
    """Leave no byte free; returns what makes room."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
    except OSError:
        pass
    return filler.unlink


def _remove(folder: Path) -> Callable[[], None]:
    shutil.rmtree(folder)
    # novad makes its log directory again by itself.
    return lambda: None


def _replace_by_file(folder: Path) -> Callable[[], None]:
    shutil.rmtree(folder)
    folder.write_text("in the way")
    return folder.unlink


def _mount_read_only(folder: Path) -> Callable[[], None]:
    for options in (["--bind", str(folder)], ["-o", "remount,ro,bind"]):
        target = [str(folder)] if options[0] == "--bind" else []
        done = subprocess.run(
            ["mount", *options, *target, *([] if target else [str(folder)])], capture_output=True
        )
        if done.returncode:
            raise Skip(f"no bind mount: {done.stderr.decode().strip()}")
    return lambda: subprocess.run(["umount", "-l", str(folder)], check=True) and None


HARMS = {
    "logs full": (_fill, "logs"),
    "state full": (_fill, "state"),
    "run full": (_fill, "run"),
    "logs removed": (_remove, "logs"),
    "logs a file": (_replace_by_file, "logs"),
    "logs read-only": (_mount_read_only, "logs"),
}


@experiment(
    "R14",
    "a full disk, a log directory that is gone, a file or read-only",
    short={"harms": ["logs full", "logs a file", "run full"], "seconds": 0.7},
    full={"harms": list(HARMS), "seconds": 5.0},
    controls={"no room made": {"harms": ["logs full"], "seconds": 0.3, "heal": False}},
    isolated=True,
)
def no_room(site: Site, harms: list[str], seconds: float, heal: bool = True) -> str:
    """No child waits, every lost line is counted, and it all works again within 2 s."""
    figures = [f"{harm} {_suffer(site, *HARMS[harm], seconds, heal)}" for harm in harms]
    return ", ".join(figures)


def _suffer(site: Site, harm: Callable[[Path], Callable[[], None]], what: str, seconds: float, heal: bool) -> str:
    where = site.running.place
    folders = {"logs": where.log_dir, "state": where.state_dir, "run": where.run_dir}
    speed = site.folder / "speed"
    if harm is _fill:
        _mount(Path(folders[what]))
    client = site.up(
        site.spec("writer", sys.executable, "-S", "-c", WRITER, str(speed)), site.sleeper("mortal", **UNTIRING)
    )
    mortal = site.bell.await_all({"mortal"}, 5)["mortal"].pid
    make_room = harm(Path(folders[what]))
    site.bell.hear_for(seconds)
    os.kill(mortal, signal.SIGKILL)
    require("mortal" in site.bell.await_all({"mortal"}, 2), "an exit is noticed and followed by a start")
    if heal:
        make_room()
    log = Path(where.log_dir) / "writer.log"
    written = _written(speed)
    until(lambda: _written(speed) > written + 100, 5, "the writer goes on")
    until(lambda: log.exists() and _last(log) > written, 2, "lines are kept again")
    client.ask("stop")
    lost, confessed = _gaps(log, harm in (_remove, _replace_by_file))
    require(lost == confessed, f"{lost} lines lost, {confessed} counted")
    worst_s = float(speed.read_text().split()[1])
    require(worst_s <= 0.1, f"no write of the child waits longer than 100 ms: {worst_s * 1000:.0f} ms")
    client.ask("down")
    require(not site.live(), f"{len(site.live())} left after down")
    site.crash()
    if harm is _fill:
        subprocess.run(["umount", "-l", folders[what]], check=True)
    shutil.rmtree(where.log_dir, ignore_errors=True)
    return f"({lost} lost, all counted, slowest write {worst_s * 1000:.0f} ms)"


def _written(speed: Path) -> int:
    return int(speed.read_text().split()[0]) if speed.exists() else 0


def _last(log: Path) -> int:
    numbers = re.findall(rb" o (\d+) x+\n", log.read_bytes()[-4096:])
    return int(numbers[-1]) if numbers else -1


def _gaps(log: Path, began_anew: bool) -> tuple[int, int]:
    """Lines that are missing between the first and the last, and lines of all streams that novad says it lost.

    In a file that began anew the first count says what it lost before its first line, of more than is known here.
    """
    lost = confessed = 0
    wanted = None if began_anew else 0
    for line in log.read_bytes().splitlines():
        if (found := re.search(rb" o (\d+) x", line)) is not None:
            number = int(found[1])
            lost += number - wanted if wanted is not None else 0
            wanted = number + 1
        elif wanted is not None and (found := re.search(rb" n (\d+) lines? lost", line)) is not None:
            confessed += int(found[1])
    # novad's own two remarks at a start are lines like any other.
    text = log.read_bytes()
    remarks = 0 if began_anew else sum(remark not in text for remark in (b" n started", b" n ready"))
    return lost + remarks, confessed
