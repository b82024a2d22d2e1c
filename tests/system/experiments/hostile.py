"""Clients that mean harm: they are cut off, and nobody else notices."""

from __future__ import annotations

import contextlib
import json
import random
import re
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nova.testing import ServiceProcess

from novad.core import wire
from novad.daemon.verbs import VERBS
from tests.novad.daemon.running import Client
from tests.system import attackers, oracle
from tests.system.board import Skip, experiment, quantile, require, spread_ms, until
from tests.system.site import Site

ROOT = Path(__file__).parents[3]
# Ten seconds, and what a loaded machine adds.
CUT_S = 11.0
# 256 KiB of answers wait in novad and 208 KiB in the socket, of 6 KiB each. The controls want it below 5 s.
TURNS, TURNS_MAX_S = 80, 4.0


@experiment(
    "R29",
    "hostile clients on the control socket",
    short={"clients": 200, "requests": 500, "status_s": 1.0},
    full={"clients": 10_000, "requests": 20_000, "status_s": 0.1},
    controls={
        "a bound that nobody keeps": {"clients": 60, "requests": 10, "cut_s": 5.0},
        "a descriptor that is kept": {"clients": 60, "requests": 10, "kept": 1},
    },
)
def hostile_clients(
    site: Site, clients: int, requests: int, status_s: float, cut_s: float = CUT_S, kept: int = 0
) -> str:
    """All are cut off within ten seconds, `status` stays quick, and the descriptors go back to what they were."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < clients + 200:
        raise Skip(f"a process may open too few files here for {clients} clients (ulimit -Hn)")
    client = site.up(*(site.sleeper(f"v{number}") for number in range(10)))
    site.bell.hear_for(0.1)
    refused = _nonsense(site, client, requests)
    base, watched = oracle.descriptors(site.pid), oracle.watched(site.pid)
    rows, answers_s, most = _attack(site, attackers.mixture(clients), cut_s)
    require(set(rows) == {*attackers.ONCE, *attackers.ANSWERED, *attackers.BUSY}, "every kind took part")
    require(
        rows["a gigabyte"]["sent"] < 4 * wire.MAX_FRAME, f"a gigabyte: taken {rows['a gigabyte']['sent']} bytes"
    )
    require(quantile(answers_s, 0.99) <= status_s, f"status p99 <= {status_s} s: {spread_ms(answers_s)}")
    extra = [Client(site.running.place.socket) for _ in range(kept)]
    for one in extra:
        one.ask("ping")
    until(lambda: oracle.descriptors(site.pid) <= base, 2.0, f"descriptors are back to {base}")
    require(oracle.watched(site.pid) <= watched, "nothing more is watched")
    states = {row["state"] for row in client.ask("status")["processes"]}
    require("Traceback" not in site.complaints(), f"no traceback: {site.complaints()[-2000:]}")
    slowest = max(row["last_s"] for row in rows.values())
    return (
        f"{clients} clients of {len(rows)} kinds ({most} descriptors at once), the last cut after {slowest:.1f} s, "
        f"status {spread_ms(answers_s)} of {len(answers_s)}, {requests} requests of nonsense ({refused} refused), "
        f"states after it {'/'.join(sorted(states))}"
    )


def _attack(
    site: Site, kinds: Mapping[str, int], cut_s: float
) -> tuple[dict[str, dict[str, Any]], list[float], int]:
    """What became of so many clients of each kind, the times of `status` meanwhile, and the most open files."""
    words = [sys.executable, "-m", "tests.system.attackers", site.running.place.socket, json.dumps(kinds)]
    crowd = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=_many_files)
    site.others.append(crowd)  # type: ignore[arg-type]
    assert crowd.stdout is not None
    crowd.stdout.readline()
    answers_s, most = _ask_until_it_ends(site, crowd)
    rows: dict[str, dict[str, Any]] = json.loads(crowd.stdout.read())
    # Of questions that the kernel has taken novad answers as many as it keeps for a client, one each turn of its loop,
    # and only then begins to count. How long a turn takes on this machine is seen in what a good client waits.
    cut_s += min(TURNS * quantile(answers_s, 0.5), TURNS_MAX_S)
    for kind, row in rows.items():
        require(
            row["ended"] == row["count"], f"{kind}: {row['count'] - row['ended']} of {row['count']} not cut off"
        )
        require(row["last_s"] <= cut_s, f"{kind}: cut off or answered within {cut_s} s: {row['last_s']} s")
    return rows, answers_s, most


def _many_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _ask_until_it_ends(site: Site, crowd: subprocess.Popen[str]) -> tuple[list[float], int]:
    """The times of `status`, each on a connection of its own, while the crowd lasts; and the most open files seen."""
    answers_s, most = [], 0
    while crowd.poll() is None:
        began_s = time.monotonic()
        one = Client(site.running.place.socket)
        one.ask("status")
        one.close()
        answers_s.append(time.monotonic() - began_s)
        most = max(most, oracle.descriptors(site.pid))
        time.sleep(0.01)
    return answers_s, most


# What a value of a request may be, when nobody has thought about it.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**31, 2**63, 10**300, 1e300, -0.0, "", "\x00", "\x1b[2J", "\ud800", "\u202e", "v0", "v*",
    "all", "[", "a" * 255, "9" * 20, "²", "../../etc/passwd", [], ["v0"], [None], [["v0"]], ["*"] * 100, {}, {"v0": 1},
    {"schema": 1}, {"schema": "1", "processes": []},
)  # fmt: skip
NAMES = ("names", "for", "timeout_s", "kill", "once", "deps", "signal", "group", "usage", "states", "lines", "on",
         "release", "dry_run", "cluster", "start", "seed", "terminal", "log", "name", "pid", "status")  # fmt: skip
# These do what they are asked to: go down, at once or with their owner, or become the code that is on the disk.
LEFT_OUT = {"down", "lease", "upgrade"}


def _nonsense(site: Site, client: Client, count: int) -> int:
    """Send `count` requests of random verbs with random arguments; each gets one answer. How many were refused."""
    chance = random.Random(29)
    verbs = [verb for verb in VERBS if verb not in LEFT_OUT]
    refused = 0
    one = Client(site.running.place.socket)
    for number in range(1, count + 1):
        args = {name: chance.choice(VALUES) for name in chance.sample(NAMES, chance.randrange(6))}
        verb = chance.choice(verbs)
        one.raw(wire.encode(wire.Request(number, verb, args)))
        refused += _is_refused(one, number)
        if number % 100 == 0:
            one.close()
            one = Client(site.running.place.socket)
    one.close()
    require(client.ask("ping")["pid"] == site.pid, "the daemon is the same")
    return refused


def _is_refused(one: Client, number: int) -> bool:
    """Whether the request gets an error. What waits for something is answered when it comes: `ping` comes first."""
    one.raw(wire.encode(wire.Request(0, "ping")))
    refused = False
    while True:
        frame = one.frame()
        if isinstance(frame, wire.Error):
            require("novad failed" not in frame.message, f"no request is too odd: {frame.message}")
            refused |= frame.id == number
        if isinstance(frame, wire.Reply) and frame.id == 0:
            return refused


@experiment(
    "R30",
    "clients that are slow on purpose, on the control socket and on a web service",
    short={"slow": 50, "greedy": 5, "web": 100, "good_s": 1.0},
    full={"slow": 500, "greedy": 50, "web": 300, "good_s": 0.2},
    controls={"a bound that nobody keeps": {"slow": 5, "greedy": 1, "web": 5, "cut_s": 5.0}},
)
def slow_clients(site: Site, slow: int, greedy: int, web: int, good_s: float, cut_s: float = CUT_S) -> str:
    """Good clients are answered in time meanwhile, and the slow ones are cut off within ten seconds."""
    site.up(*(site.sleeper(f"v{number}") for number in range(10)))
    rss = oracle.rss_bytes(site.pid)
    kinds = {"a byte at a time": slow, "questions without end": greedy}
    rows, control_s, _ = _attack(site, kinds, cut_s)
    grown = oracle.rss_bytes(site.pid) - rss
    require(quantile(control_s, 0.99) <= good_s, f"status p99 <= {good_s} s: {spread_ms(control_s)}")
    require(
        grown <= 2e6 * greedy + 20e6, f"memory is bounded by what a client may leave unread: {grown / 1e6:.0f} MB"
    )
    with ServiceProcess("nova-objectstore", "--objectstore_listen_port=0") as process:
        port = int(re.findall(r"nova-objectstore listens on port (\d+)", process.wait_ready(60.0).log)[0])
        last_s, web_s = _crawl(port, web, cut_s)
    require(quantile(web_s, 0.99) <= good_s, f"good requests p99 <= {good_s} s: {spread_ms(web_s)}")
    cut = max(row["last_s"] for row in rows.values())
    return (
        f"control: {slow} slow and {greedy} greedy cut after {cut:.1f} s, status {spread_ms(control_s)}, "
        f"RSS {grown / 1e6:+.1f} MB; web: {web} slow ones cut after {last_s:.1f} s, good ones {spread_ms(web_s)}"
    )


def _crawl(port: int, count: int, cut_s: float) -> tuple[float, list[float]]:
    """`count` requests of which a letter comes every half second, or nothing at all, and good ones beside them.

    How long the last of the slow ones was served, and how long each good one took.
    """
    began_s = time.monotonic()
    crawlers = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    for crawler in crawlers[::2]:
        crawler.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
    good_s: list[float] = []
    left, next_s, last_s = set(crawlers), 0.0, 0.0
    while left and time.monotonic() - began_s < cut_s + 5.0:
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + 0.5
            for crawler in left & set(crawlers[::2]):
                with contextlib.suppress(OSError):
                    crawler.send(b"x")
        asked_s = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), 10.0) as good:
            good.sendall(b"GET /bucket HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            require(good.recv(65536).startswith(b"HTTP/1.1 403 "), "who is not signed is refused, at once")
        good_s.append(time.monotonic() - asked_s)
        for crawler in select.select(list(left), [], [], 0.01)[0]:
            with contextlib.suppress(OSError):
                if crawler.recv(65536):
                    continue
            left.discard(crawler)
            last_s = time.monotonic() - began_s
    for crawler in crawlers:
        crawler.close()
    # This loop looks once between two good requests.
    cut_s += max(good_s)
    require(
        not left and last_s <= cut_s,
        f"slow requests are cut off within {cut_s} s: {len(left)} left, {last_s:.1f} s",
    )
    return last_s, good_s
