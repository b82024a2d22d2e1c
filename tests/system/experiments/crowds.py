"""Many: services, cycles, signals. What is bounded stays bounded."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

from tests.system import oracle
from tests.system.board import experiment, quantile, require, spread_ms, until
from tests.system.site import UNTIRING, Site


@experiment(
    "R18",
    "five hundred services",
    short={"services": 60, "each_s": 5.0, "settle_s": 0.0, "idle_s": 1.0, "status_s": 1.0, "rss_mb": 100},
    full={"services": 500, "each_s": 5.0, "settle_s": 12.0, "idle_s": 10.0, "status_s": 0.2, "rss_mb": 100},
    controls={"a service that polls in novad's stead": {"busy": True}},
)
def many_services(
    site: Site,
    services: int,
    each_s: float,
    settle_s: float,
    idle_s: float,
    status_s: float,
    rss_mb: float,
    busy: bool = False,
) -> str:
    """Up, idle, status, a crash of novad and adoption, down."""
    names = {f"v{number}" for number in range(services)}
    specs = [site.sleeper(name) for name in sorted(names)]
    figures = {}

    began_s = time.monotonic()
    client = site.up(*specs)
    figures["up"] = time.monotonic() - began_s
    require(site.bell.await_all(names, 1).keys() == names, "every service rang")
    pids = {seen.pid for found in site.leaders().values() for seen in found}

    # A daemon looks once, after 10 s, whether anybody has given it a cluster.
    site.bell.hear_for(settle_s)
    _check_idle(site, idle_s, (lambda: client.ask("ping")) if busy else (lambda: None))
    took_s = []
    for _ in range(10):
        began_s = time.monotonic()
        rows = client.ask("status")["processes"]
        took_s.append(time.monotonic() - began_s)
        require(len(rows) == services, f"{len(rows)} rows")
    require(quantile(took_s, 0.9) <= status_s, f"status <= {status_s} s: {spread_ms(took_s)}")
    rss = oracle.rss_bytes(site.pid) / 1e6
    require(rss <= rss_mb, f"RSS <= {rss_mb} MB: {rss:.0f} MB")

    site.crash()
    began_s = time.monotonic()
    site.start()
    client = site.client()
    client.ask("up", cluster=site.cluster(*specs))
    client.ask("wait", **{"for": "ready"})
    figures["adopt"] = time.monotonic() - began_s
    adopted = {seen.pid for found in site.leaders().values() for seen in found}
    require(adopted == pids, f"the same children: {len(adopted - pids)} new, {len(pids - adopted)} gone")

    began_s = time.monotonic()
    client.ask("down")
    figures["down"] = time.monotonic() - began_s
    require(not site.live(), f"{len(site.live())} left after down")
    for what, seconds in figures.items():
        require(seconds <= each_s, f"{what} <= {each_s:g} s: {seconds:.2f} s")
    said = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in figures.items())
    return f"{services}: {said}, status {spread_ms(took_s)}, RSS {rss:.0f} MB, idle 0 wake-ups"


def _check_idle(site: Site, seconds: float, disturb: Callable[[], object]) -> None:
    """Waits for the timers of the start to have run, then counts what wakes novad."""
    _rest(site)
    before, cpu_s = oracle.wakeups(site.pid), oracle.cpu_s(site.pid)
    disturb()
    require(not site.bell.hear_for(seconds), "nothing restarts by itself")
    woken, spent_s = oracle.wakeups(site.pid) - before, oracle.cpu_s(site.pid) - cpu_s
    require(woken == 0, f"idle means no wake-up in {seconds:g} s: {woken}")
    require(spent_s == 0.0, f"idle means no CPU in {seconds:g} s: {spent_s:.2f} s")


def _rest(site: Site) -> None:
    """Returns once novad has slept for half a second."""
    before = -1
    while before != (before := oracle.wakeups(site.pid)):
        site.bell.hear_for(0.5)


@experiment(
    "R19",
    "stop and start, a thousand times",
    short={"cycles": 40, "warm_up": 20, "cycle_s": 0.5, "slope_bytes": 20_000},
    # eventlet keeps up to a thousand cancelled timers; until there are as many, memory grows.
    full={"cycles": 1000, "warm_up": 300, "cycle_s": 0.1, "slope_bytes": 2_000},
    controls={"a client that is forgotten in each cycle": {"forget": True}},
)
def cycles(
    site: Site, cycles: int, warm_up: int, cycle_s: float, slope_bytes: float, forget: bool = False
) -> str:
    """Descriptors, threads, epoll entries and files stay as they are; memory hardly grows."""
    client = site.up(*(site.sleeper(name) for name in "abc"))
    took_s: list[float] = []
    before: dict[str, int] = {}
    rss = 0
    for number in range(cycles + warm_up):
        if number == warm_up:
            before, rss = _held(site), oracle.rss_bytes(site.pid)
        began_s = time.monotonic()
        client.ask("stop")
        client.ask("start")
        took_s.append(time.monotonic() - began_s)
        if forget:
            site.client().ask("ping")
    client.ask("stop")
    client.ask("start")
    slope = (oracle.rss_bytes(site.pid) - rss) / cycles
    require(_held(site) == before, f"held before {before}, after {_held(site)}")
    require(slope <= slope_bytes, f"memory <= {slope_bytes} bytes a cycle: {slope:.0f}")
    mean_s = sum(took_s) / len(took_s)
    require(mean_s <= cycle_s, f"a cycle takes <= {cycle_s * 1000:g} ms: {mean_s * 1000:.0f} ms")
    require(not oracle.zombies_of(site.pid), "no zombies")
    return f"{cycles} cycles, {mean_s * 1000:.1f} ms each, memory {slope:+.0f} bytes a cycle, nothing held"


def _held(site: Site) -> dict[str, int]:
    run_dir = site.running.place.run_dir
    return {
        "descriptors": oracle.descriptors(site.pid),
        "watched": oracle.watched(site.pid),
        "threads": oracle.threads(site.pid),
        "files": sum(len(files) for _, _, files in os.walk(run_dir)),
    }


HARMLESS = [
    signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGPIPE, signal.SIGALRM, signal.SIGWINCH,
    signal.SIGCONT, signal.SIGURG, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO,
    signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
]  # fmt: skip


@experiment(
    "R20",
    "a storm of signals to novad while children die",
    short={"signals": 2_000, "deaths": 40},
    full={"signals": 10_000, "deaths": 200},
    controls={"a signal that ends novad": {"extra": signal.SIGKILL}},
)
def signal_storm(site: Site, signals: int, deaths: int, extra: int = 0) -> str:
    """Every death is followed by a start; no signal stops, ends or confuses novad."""
    dice = random.Random(20)
    names = {f"v{number}" for number in range(10)}
    site.up(*(site.sleeper(name, **UNTIRING) for name in names))
    pids = {name: ring.pid for name, ring in site.bell.await_all(names, 5).items()}
    due: dict[str, float] = {}
    took_s: list[float] = []
    sent = 0
    while sent < signals or len(took_s) < deaths:
        if extra and sent == signals // 2:
            site.crash()
        _storm(site, dice, 50)
        sent += 50
        for ring in site.bell.hear(0.002):
            pids[ring.name] = ring.pid
            if ring.name in due:
                took_s.append(ring.at_s - due.pop(ring.name))
        if len(took_s) + len(due) < deaths and (free := sorted(names - due.keys())):
            name = dice.choice(free)
            due[name] = time.monotonic()
            os.kill(pids[name], signal.SIGKILL)
        lost = [name for name, at_s in due.items() if time.monotonic() - at_s > 10]
        require(not lost, f"an exit was lost: {lost}")
    until(lambda: site.leaders().keys() == names, 5, f"all alive: {sorted(site.leaders())}")
    require(not site.doubled(), f"two live instances: {site.doubled()}")
    state = getattr(oracle.look(site.pid), "state", "gone")
    require(state in "SR", f"novad runs: {state}")
    return f"{sent} signals of {len(HARMLESS)} kinds, {len(took_s)} deaths, 0 lost, restart {spread_ms(took_s)}"


def _storm(site: Site, dice: random.Random, count: int) -> None:
    for _ in range(count):
        number = dice.choice(HARMLESS)
        require(oracle.look(site.pid) is not None, "novad runs")
        os.kill(site.pid, number)
