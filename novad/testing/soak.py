"""`novad soak`: kills and freezes at random for a while; each service must be ready again within its deadline.

The plan comes from the seed alone, so the same seed harms the same services in the same order with the same pauses.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from novad.client.app import App
from novad.client.link import Link
from novad.client.render.words import duration, plural
from novad.core.errors import NovadError
from novad.testing.drill import Recovery, back_after, harm, pause, told

KINDS = ("kill", "kill", "freeze")
FREEZE_S = (0.05, 1.0)
PAUSE_S = (0.05, 0.5)
EXIT_FAILED = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One harm: to whom, what, how long it lasts, and how long it is quiet before it."""

    name: str
    kind: str
    hold_s: float
    pause_s: float


def plan(seed: int, names: list[str]) -> Iterator[Step]:
    """The steps of a seed, without end. Pure."""
    chance = random.Random(seed)
    while True:
        name, kind = chance.choice(sorted(names)), chance.choice(KINDS)
        yield Step(name, kind, round(chance.uniform(*FREEZE_S), 3), round(chance.uniform(*PAUSE_S), 3))


def one(link: Link, step: Step, deadline_s: float) -> Recovery:
    """One harm. Who gave up because of our many kills alone is started again: that is our doing, and no weakness."""
    recovery = harm(link, step.kind, step.name, step.hold_s, deadline_s)
    if recovery.back_s is None and is_worn_out(link, step.name):
        link.request("start", names=[step.name], deps=False)
        back_s = back_after(link, step.name, time.monotonic(), deadline_s)
        return Recovery(step.name, step.kind, back_s)
    return recovery


def is_worn_out(link: Link, name: str) -> bool:
    """Whether it has failed, and each of the several failures in a row was a signal that a client had sent."""
    entry = link.request("why", names=[name])["processes"][0]
    exits = entry["exits"][: entry["failures"]]
    return entry["state"] == "failed" and entry["failures"] > 1 and all(item["signalled"] for item in exits)


def run(app: App, names: tuple[str, ...], seed: int | None, lasts: float, deadline: float) -> int:
    """0 when every service came back each time, 1 at the first that did not."""
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    found: list[Recovery] = []
    with app.link() as link:
        rows = link.request("status", names=list(names), usage=False)["processes"]
        chosen = [row["name"] for row in rows if row["state"] == "ready"]
        if not chosen:
            raise NovadError("nothing is ready that could be harmed", f"{app.command_name()} status")
        link.request("subscribe", states=True, lines=None)
        app.terminal.note(f"seed {seed}: {plural(len(chosen), 'service')} for {duration(lasts)}")
        until_s = time.monotonic() + lasts
        for step in plan(seed, chosen):
            if time.monotonic() + step.pause_s >= until_s:
                break
            pause(link, step.pause_s)
            found.append(one(link, step, deadline))
            app.terminal.note(told(found[-1], deadline))
            if found[-1].back_s is None:
                break
    lost = [item.name for item in found if item.back_s is None]
    if app.options.json:
        app.print_json({"seed": seed, "drills": [item.to_json() for item in found]})
    else:
        slowest = max((item.back_s or 0.0 for item in found), default=0.0)
        app.terminal.out(
            f"{len(found)} harms, {len(lost)} not survived, slowest back after {duration(slowest)} (seed {seed})"
        )
    if lost:
        app.terminal.note(f"hint: {app.command_name()} why {lost[0]}; --seed {seed} repeats this run")
    return EXIT_FAILED if lost else 0
