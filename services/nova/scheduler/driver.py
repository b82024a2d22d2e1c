"""Which host gets an instance or a volume. Pure: hosts and a wish go in, a host comes out.

`chance` takes any host that has room, `simple` the one with the least on it. A driver is a function; the flag
`scheduler_driver` names it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from nova import exception


class NoValidHost(exception.Error):
    """No host may take this; the message says why."""


class Life(Enum):
    READY = "ready"
    COMING = "coming"  # up, but starting or draining: it may be ready in a moment
    DISABLED = "disabled"
    DOWN = "down"


@dataclass(frozen=True)
class Host:
    """A host as a scheduler sees it: how many things are on it, and how much of its measure they use."""

    name: str
    zone: str
    life: Life
    count: int = 0
    used: int = 0  # vcpus or gigabytes


@dataclass(frozen=True)
class Wish:
    """What is to be placed: so much, at most `limit` on one host, in a zone (`zone`, `zone:host` or any)."""

    amount: int
    limit: int
    unit: str  # for people: vcpus or GB
    zone: str | None = None
    excluded: frozenset[str] = frozenset()


Choice = Callable[[Sequence[Host], random.Random], Host]


def chance(hosts: Sequence[Host], dice: random.Random) -> Host:
    return dice.choice(hosts)


def simple(hosts: Sequence[Host], dice: random.Random) -> Host:
    """The host with the least used; among equals chance decides, or all schedulers would pick the same."""
    least = min((host.used, host.count) for host in hosts)
    return dice.choice([host for host in hosts if (host.used, host.count) == least])


CHOICES: dict[str, Choice] = {"chance": chance, "simple": simple}


def choose(choice: Choice, hosts: Sequence[Host], wish: Wish, dice: random.Random) -> Host:
    """Raises `NoValidHost` with the first reason that left no host."""
    zone, _, name = (wish.zone or "").partition(":")
    left = list(hosts)
    for reason, fits in (
        ("no host is known", lambda host: True),
        (f"no host is called {name}", lambda host: not name or host.name == name),
        (f"no host is in the zone {zone}", lambda host: not zone or host.zone == zone),
        ("no host is up, enabled and ready", lambda host: host.life is Life.READY),
        ("every host that is up has failed", lambda host: host.name not in wish.excluded),
        (
            f"no host has room for {wish.amount} {wish.unit}",
            lambda host: host.used + wish.amount <= wish.limit,
        ),
    ):
        left = [host for host in left if fits(host)]
        if not left:
            raise NoValidHost(reason)
    return choice(left, dice)
