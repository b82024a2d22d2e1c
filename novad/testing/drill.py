"""Fault drills: `novad drill KIND SVC` does one harm to a running cluster, undoes it, and waits for readiness.

What lasts for a while is held by our connection to novad, which undoes it when that closes: on Ctrl-C, on an error,
when this process is killed.
The times at which a service went and came back are those of novad's own events.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from novad.client.app import App
from novad.client.interrupts import Interrupts
from novad.client.link import Link
from novad.client.render.words import duration
from novad.core.errors import NovadError

ANSWER_S = 60.0
FLAPS = 3
READY = ("ready", "done")


@dataclass(frozen=True, slots=True)
class Recovery:
    """How a process came through: `back_s` from the harm to ready again, None when it did not in time."""

    name: str
    kind: str
    back_s: float | None

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "drill": self.kind, "ready_again_s": self.back_s}


def run(app: App, kind: str, names: tuple[str, ...], hold: float, timeout: float) -> int:
    """Harm each of `names` in turn; 0 when each is ready again in time, 1 when not."""
    with app.link() as link:
        chosen = [row["name"] for row in link.request("status", names=list(names), usage=False)["processes"]]
        link.request("subscribe", states=True, lines=None)
        found = []
        for name in chosen:
            found.append(harm(link, kind, name, hold, timeout))
            if not app.options.json:
                app.terminal.out(told(found[-1], timeout))
    if app.options.json:
        app.print_json({"drills": [item.to_json() for item in found]})
    lost = [item.name for item in found if item.back_s is None]
    if lost:
        app.terminal.note(f"hint: {app.command_name()} why {lost[0]}")
    return 1 if lost else 0


def told(item: Recovery, timeout_s: float) -> str:
    if item.back_s is None:
        return f"✖ {item.name}  {item.kind}: not ready again after {duration(timeout_s)}"
    return f"✔ {item.name}  {item.kind}: ready again after {duration(item.back_s)}"


def harm(link: Link, kind: str, name: str, hold_s: float, timeout_s: float) -> Recovery:
    """One drill of one process that is ready. Raises `NovadError` where it is not, or where it cannot be done."""
    if state_of(link, name)["state"] != "ready":
        raise NovadError(f"{name} is not ready before the drill", "novad why tells the reason")
    began_s = time.monotonic()
    try:
        HARMS[kind](link, name, hold_s)
    finally:
        with contextlib.suppress(NovadError):
            link.request("harm", names=[name], undo=True)
    return Recovery(name, kind, back_after(link, name, began_s, timeout_s))


def state_of(link: Link, name: str) -> dict[str, Any]:
    row: dict[str, Any] = link.request("status", names=[name], usage=False)["processes"][0]
    return row


def back_after(link: Link, name: str, began_s: float, timeout_s: float) -> float | None:
    """Seconds from `began_s` until the process is ready, None when the time has run out or there is no hope."""
    until_s = time.monotonic() + timeout_s
    row = state_of(link, name)
    link.queued_events()
    while row["state"] not in READY:
        if row["state"] in ("failed", "stopped"):
            return None
        event = link.next_event(max(0.0, until_s - time.monotonic()))
        if event is None:
            return None
        if event.get("type") == "state" and event["name"] == name:
            row = event
    return round(time.monotonic() - began_s, 3)


def died(link: Link, name: str, pid: int | None) -> None:
    """Returns when novad has noticed that `pid` is not the process any more."""
    until_s = time.monotonic() + ANSWER_S
    while (event := link.next_event(max(0.0, until_s - time.monotonic()))) is not None:
        if event.get("type") == "state" and event["name"] == name and event.get("pid") != pid:
            return
    raise NovadError(f"{name} (pid {pid}) is still alive", "novad stop --kill ends it")


def kill(link: Link, name: str, _hold_s: float) -> None:
    """SIGKILL, as the kernel does it when memory runs out."""
    pid = state_of(link, name)["pid"]
    link.queued_events()
    link.request("signal", names=[name], signal="KILL")
    died(link, name, pid)


def flap(link: Link, name: str, _hold_s: float) -> None:
    """Killed again each time it is ready."""
    for _ in range(FLAPS):
        kill(link, name, 0.0)
        if back_after(link, name, time.monotonic(), ANSWER_S) is None:
            raise NovadError(f"{name} did not come back between two kills", f"novad why {name}")


def held(kind: str) -> Callable[[Link, str, float], None]:
    """A harm that novad does for `hold_s`: docs/control.md, `harm`."""

    def hold(link: Link, name: str, hold_s: float) -> None:
        link.request("harm", names=[name], kind=kind)
        pause(link, hold_s)
        link.request("harm", names=[name], kind=kind, undo=True)

    return hold


def slow_start(link: Link, name: str, hold_s: float) -> None:
    """Restarted, and frozen for `hold_s` as soon as it exists: what waits for it must wait."""
    old = state_of(link, name)["pid"]
    link.queued_events()
    asked = link.send("restart", names=[name], timeout_s=None, deps=False)
    while (event := link.next_event(ANSWER_S)) is not None:
        if event.get("type") == "state" and event["name"] == name and event.get("pid") not in (None, old):
            break
    held("freeze")(link, name, hold_s)
    link.result(asked, ANSWER_S)


def pause(link: Link, seconds: float) -> None:
    """Waits, and takes in what novad tells meanwhile; Ctrl-C ends the wait."""
    until_s = time.monotonic() + seconds
    with Interrupts() as interrupts:
        while (left_s := until_s - time.monotonic()) > 0:
            ready = link.wait([interrupts.fileno()], left_s)
            if interrupts.fileno() in ready:
                raise KeyboardInterrupt
            if ready and link.ended:
                raise NovadError("novad ended during the drill", "novad up")
            if ready:
                link.pending_events()


HARMS: dict[str, Callable[[Link, str, float], None]] = {
    "kill": kill, "freeze": held("freeze"), "slow-start": slow_start, "flap": flap,
    "fill-log": held("fill-log"), "drop-port": held("drop-port"),
}  # fmt: skip
