"""SIGKILL to children, and to novad itself: nothing is lost, nothing is doubled."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from typing import Any

from novad.core.spec import Probe, ProcessSpec
from tests.novad.daemon.running import Client
from tests.system import oracle
from tests.system.board import experiment, quantile, require, spread_ms
from tests.system.site import UNTIRING, Site


@experiment(
    "R01",
    "kill -9 of random children",
    short={"kills": 100, "services": 20, "p50_s": 0.05, "p99_s": 0.5},
    full={"kills": 1000, "services": 20, "p50_s": 0.010, "p99_s": 0.050},
    controls={
        "a child that is not restarted": {"fields": {"restart": "no"}, "patience_s": 1.0},
        "a second copy of a service": {"double_at": 50},
    },
)
def kill_children(
    site: Site,
    kills: int,
    services: int,
    p50_s: float,
    p99_s: float,
    patience_s: float = 5.0,
    fields: Any = None,
    double_at: int = -1,
) -> str:
    """The time counts from the kill to the successor's first act, as the victim rings it."""
    dice = random.Random(1)
    names = [f"v{number}" for number in range(services)]
    site.up(*(site.sleeper(name, **{**UNTIRING, **(fields or {})}) for name in names))
    pids = {name: ring.pid for name, ring in site.bell.await_all(set(names), patience_s).items()}
    descriptors, rss = oracle.descriptors(site.pid), oracle.rss_bytes(site.pid)
    took_s = []
    for number in range(kills):
        name = dice.choice(names)
        began_s = time.monotonic()
        os.kill(pids[name], signal.SIGKILL)
        rings = site.bell.await_all({name}, patience_s)
        require(name in rings, f"{name} was lost after {number} kills")
        require(rings[name].pid != pids[name], "a new child has a new pid")
        took_s.append(rings[name].at_s - began_s)
        pids[name] = rings[name].pid
        if number == double_at:
            start_second_copy(site, name)
        if number % 50 == 49 or number == kills - 1:
            require(not site.doubled(), f"two live instances: {site.doubled()}")
            require(site.leaders().keys() == set(names), "every service is alive")
    # Bookkeeping of the last restart may still be under way.
    site.client().ask("ping")
    more = oracle.descriptors(site.pid) - descriptors
    grown = oracle.rss_bytes(site.pid) - rss
    # One for the connection of the ping.
    require(more <= 1, f"{more} more descriptors after {kills} kills")
    require(grown <= 1024 * 1024, f"{grown / 1024:.0f} kB more memory after {kills} kills")
    require(quantile(took_s, 0.5) <= p50_s, f"p50 <= {p50_s * 1000:g} ms: {spread_ms(took_s)}")
    require(quantile(took_s, 0.99) <= p99_s, f"p99 <= {p99_s * 1000:g} ms: {spread_ms(took_s)}")
    return f"{kills} kills, 0 lost, 0 doubled, {spread_ms(took_s)}, rss +{grown / 1024:.0f} kB"


def start_second_copy(site: Site, name: str) -> None:
    env = {"VICTIM": name, "SITE": site.token}
    site.others.append(subprocess.Popen(["sleep", "600"], env={**os.environ, **env}, start_new_session=True))


@experiment(
    "R02",
    "kill -9 of novad at random points of up, stop, restart, reload and down",
    short={"crashes": 20, "services": 6, "converge_s": 5.0},
    full={"crashes": 200, "services": 10, "converge_s": 1.0},
    controls={"adoption switched off": {"forget": True}},
)
def kill_novad(site: Site, crashes: int, services: int, converge_s: float, forget: bool = False) -> str:
    """Commands in a burst, the daemon killed somewhere in it; then a new daemon and `up`, with nobody's help."""
    dice = random.Random(2)
    specs = [_victim(site, f"v{number}", forget) for number in range(services)]
    names = {spec.name for spec in specs}
    took_s = []
    client = site.up(*specs)
    for number in range(crashes):
        _burst(site, client, specs, dice)
        site.crash()
        require(not site.doubled(), f"two live instances after crash {number}: {site.doubled()}")
        if forget:
            _forget(site)
        began_s = time.monotonic()
        site.start()
        client = site.client()
        client.ask("up", cluster=site.cluster(*specs))
        client.ask("wait", **{"for": "ready"})
        took_s.append(time.monotonic() - began_s)
        require(not site.doubled(), f"two live instances after up {number}: {site.doubled()}")
        require(site.leaders().keys() == names, f"after up {number} alive: {sorted(site.leaders())}")
        if number % 10 == 9:
            client = _down_and_up(site, client, specs)
    client.ask("down")
    left = site.live()
    require(not left, f"{len(left)} left after down")
    worst_s = quantile(took_s, 0.95)
    require(worst_s <= converge_s, f"up converges within {converge_s:g} s: p95 {worst_s:.2f} s")
    return f"{crashes} crashes, 0 doubled, up {spread_ms(took_s)}, 0 left"


def _victim(site: Site, name: str, unmarked: bool) -> ProcessSpec:
    """Ready once it says so, which takes a while: so that crashes hit the time before as well."""
    if unmarked:
        return site.spec(name, "/usr/bin/env", "-u", "NOVAD_ID", "sleep", "600", start_s=0.02)
    return site.shell(name, "echo on; exec sleep 600", ready=Probe(log="on"))


def _burst(site: Site, client: Client, specs: list[ProcessSpec], dice: random.Random) -> None:
    """Some commands, not waited for, and up to 30 ms of novad's work on them."""
    is_leaving = False
    for _ in range(dice.randrange(1, 6)):
        verb = dice.choice(["restart", "stop", "start", "reload", "down"])
        args: dict[str, Any] = {}
        if verb == "reload":
            changed = [replace(spec, env={**spec.env, "ROUND": str(dice.random())}) for spec in specs[:2]]
            args = {"cluster": site.cluster(*changed, *specs[2:])}
        elif verb != "down":
            args = {"names": [dice.choice(specs).name]}
        try:
            client.send(verb, **args)
        except BrokenPipeError:
            # It may have gone down meanwhile, as it was told; without that order it must not.
            require(is_leaving, "novad takes commands until it is told to go down")
            break
        is_leaving = is_leaving or verb == "down"
    select.select([], [], [], dice.uniform(0, 0.03))


def _forget(site: Site) -> None:
    """Everything by which a new daemon could know what runs, the definition excepted."""
    for folder in ("records", "locks"):
        shutil.rmtree(f"{site.running.place.run_dir}/{folder}", ignore_errors=True)


def _down_and_up(site: Site, client: Client, specs: list[ProcessSpec]) -> Client:
    """kill -9 in the middle of a `down`, then a new daemon and `down`: nothing may be left."""
    client.send("down")
    site.crash()
    site.start()
    client = site.client()
    client.ask("down")
    assert site.running.process is not None
    site.running.process.wait(10)
    require(not site.live(), f"{len(site.live())} left after a crash in down, and down")
    return site.up(*specs)
