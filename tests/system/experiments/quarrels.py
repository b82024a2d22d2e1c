"""Many clients who want different things of the same services at the same time."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace

from novad.core.spec import ProcessSpec
from tests.novad.daemon.running import Client, Refused
from tests.system.board import experiment, quantile, require, spread_ms, until
from tests.system.experiments.kills import start_second_copy
from tests.system.site import UNTIRING, Site

WANTS = {"start": True, "restart": True, "stop": False}


@dataclass(frozen=True, slots=True)
class Asked:
    """One command and its one answer; `is_up` is what it wants of the service, None where it wants nothing of it."""

    name: str
    is_up: bool | None
    sent_s: float
    answered_s: float


@experiment(
    "R06",
    "clients who start, stop, restart, reload and signal services that crash at random",
    short={"clients": 10, "seconds": 3.0, "p99_s": 3.0},
    full={"clients": 50, "seconds": 60.0, "p99_s": 0.5},
    controls={
        "a command that nobody remembers": {"forget": True},
        "a second copy of a service": {"double": True},
    },
)
def quarrel(
    site: Site, clients: int, seconds: float, p99_s: float, forget: bool = False, double: bool = False
) -> str:
    """Every command has one answer; what each service is in the end is what the last of them wanted."""
    names = [f"v{number}" for number in range(10)]
    specs = [site.sleeper(name, **UNTIRING) for name in names]
    site.up(*specs)
    over_s = time.monotonic() + seconds
    asked: list[Asked] = []
    failures: list[str] = []
    threads = [
        threading.Thread(target=_ask, args=(site, specs, random.Random(number), over_s, asked, failures))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    if double:
        start_second_copy(site, "v0")
    samples, kills = _crash_at_random(site, over_s)
    for thread in threads:
        thread.join(30)
    require(not any(thread.is_alive() for thread in threads), "every command is answered")
    require(not failures, f"every command is answered: {failures[:3]}")
    if forget:
        sent_s = time.monotonic()
        site.client().ask("stop", names=["v0"])
        asked.append(Asked("v0", False, sent_s, time.monotonic()))
        site.client().ask("start", names=["v0"])
        until(lambda: "v0" in site.leaders(), 10, "v0 is started")
    for name in names:
        _expect(site, name, _possible(asked, name))
    took_s = [item.answered_s - item.sent_s for item in asked]
    require(quantile(took_s, 0.99) <= p99_s, f"p99 of an answer <= {p99_s * 1000:g} ms: {spread_ms(took_s)}")
    return f"{len(asked)} commands, {spread_ms(took_s)}; {kills} crashes; {samples} samples, 0 doubled"


def _ask(
    site: Site,
    specs: list[ProcessSpec],
    dice: random.Random,
    over_s: float,
    asked: list[Asked],
    failures: list[str],
) -> None:
    client = Client(site.running.place.socket)
    while time.monotonic() < over_s:
        verb = dice.choice(["start", "stop", "restart", "reload", "signal"])
        spec = dice.choice(specs)
        args: dict[str, object] = {"names": [spec.name]}
        if verb == "reload":
            changed = replace(spec, env={**spec.env, "ROUND": str(dice.random())})
            args = {"cluster": site.cluster(*(changed if other is spec else other for other in specs))}
        elif verb == "signal":
            args["signal"] = "KILL"
        sent_s = time.monotonic()
        try:
            client.ask(verb, **args)
        except Refused as refusal:
            # A reload whose service crashes meanwhile is taken back, and says so.
            if verb != "reload":
                failures.append(f"{verb} {spec.name}: {refusal}")
        except (OSError, EOFError) as error:
            failures.append(f"{verb} {spec.name}: {type(error).__name__}: {error}")
            return
        asked.append(Asked(spec.name, WANTS.get(verb), sent_s, time.monotonic()))
    client.close()


def _crash_at_random(site: Site, over_s: float) -> tuple[int, int]:
    """How often was looked, and how often a service was killed."""
    dice, samples, kills = random.Random(6), 0, 0
    while time.monotonic() < over_s:
        require(not site.doubled(), f"two live instances: {site.doubled()}")
        samples += 1
        if leaders := site.leaders():
            with suppress(ProcessLookupError):
                os.kill(leaders[dice.choice(sorted(leaders))][0].pid, signal.SIGKILL)
                kills += 1
        site.bell.hear_for(0.05)
    return samples, kills


def _expect(site: Site, name: str, wanted: set[bool]) -> None:
    until(
        lambda: (name in site.leaders()) in wanted, 3, f"{name} runs or not as the last command wanted: {wanted}"
    )


def _possible(asked: list[Asked], name: str) -> set[bool]:
    """What `name` may be in the end: what those wanted after whose answer nobody wanted anything else of it."""
    found = [item for item in asked if item.name == name and item.is_up is not None]
    last_s = max((item.sent_s for item in found), default=0.0)
    return {bool(item.is_up) for item in found if item.answered_s >= last_s} or {True}
