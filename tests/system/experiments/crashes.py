"""novad killed at one system call after another: no half-done step may harm.

The daemon runs untraced until it is ready; then strace attaches and kills it on entry to the N-th call of one kind,
so that N counts the steps of the command and not those of the interpreter's start.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from novad.core.spec import Probe, ProcessSpec
from tests.novad.daemon.running import Client
from tests.system.board import experiment, require, until
from tests.system.site import Site
from tests.system.tracing import tampered

CALLS = (
    "openat", "write", "pwrite64", "fsync", "rename", "flock", "unlink", "vfork", "fork", "clone", "clone3",
    "pidfd_open", "epoll_ctl", "sendto",
)  # fmt: skip
VERBS = ("up", "start", "stop", "reload")
NEXT = ("up", "status", "down")
NAMES = {"a", "b", "c"}


@experiment(
    "R03",
    "kill -9 of novad at the N-th system call of up, start, stop and reload",
    short={"calls": ["vfork", "flock", "pwrite64"], "steps": [2], "at_least": 6},
    full={"calls": list(CALLS), "steps": [1, 2, 3, 4, 6, 8, 11, 15, 20, 28, 40], "at_least": 60},
    controls={
        "adoption switched off": {"calls": ["pidfd_open"], "lose": ["records", "locks", "mark"], "at_least": 0},
        "a definition that is lost": {"calls": ["epoll_ctl"], "lose": ["cluster.json"], "at_least": 0},
    },
)
def sweep(
    site: Site, calls: list[str], steps: list[int], at_least: int, lose: Iterable[str] = frozenset()
) -> str:
    """After each the next command converges, whichever it is, and what was answered is still so."""
    reached = told = 0
    for call in calls:
        for verb in VERBS:
            for step in steps:
                what = f"{verb} at {call} {step}"
                died, answered = _crash_at(site, verb, call, step, "mark" in lose)
                if died:
                    _lose(site, lose)
                    _converge(site, what, verb, answered, NEXT[reached % len(NEXT)], "mark" in lose)
                    reached += 1
                    told += answered
                else:
                    site.client().ask("down")
                _expect_nothing_left(site, what)
                if not died:
                    break
    require(reached >= at_least, f"at least {at_least} points are reached: {reached}")
    return f"{reached} points of {len(calls)} calls, {told} after the answer, 0 doubled, 0 left, 0 answers untrue"


def _specs(site: Site, changed: bool = False, unmarked: bool = False) -> list[ProcessSpec]:
    """Three, of which one waits for another; `changed` is the definition that a reload brings."""
    if unmarked:
        return [
            site.spec(name, "/usr/bin/env", "-u", "NOVAD_ID", "sleep", "600", start_s=0.02)
            for name in sorted(NAMES)
        ]
    sleep = "echo on; exec sleep 601" if changed else "echo on; exec sleep 600"
    return [
        site.shell("a", sleep, ready=Probe(log="on")),
        site.shell("b", sleep, ready=Probe(log="on"), after=["a:ready"]),
        site.shell("c", "exec sleep 600", start_s=0.02),
    ]


def _crash_at(site: Site, verb: str, call: str, step: int, unmarked: bool) -> tuple[bool, bool]:
    """Whether novad died at that call of `verb`, and whether it had answered yes before."""
    site.start()
    client = site.client()
    if verb != "up":
        # It has all its threads then, also the one that writes.
        client.ask("up", cluster=site.cluster(*_specs(site, unmarked=unmarked)), start=verb != "start")
    if verb not in ("up", "start"):
        client.ask("wait", **{"for": "ready"})
    args: dict[str, Any] = {}
    if verb in ("up", "reload"):
        args = {"cluster": site.cluster(*_specs(site, verb == "reload", unmarked))}
    with tampered([site.pid], [call], f"signal=SIGKILL:when={step}"):
        answered = died = False
        try:
            number = client.send(verb, **args)
            client.answer(number)
            answered = True
            # What follows the answer counts as well.
            client.ask("wait", **{"for": "stopped" if verb == "stop" else "ready"})
        except (EOFError, OSError):
            died = True
        if died:
            assert site.running.process is not None
            code = site.running.process.wait(10)
            require(code == -signal.SIGKILL, f"novad ended by the kill: {code}")
    return died, answered


def _lose(site: Site, what: Iterable[str]) -> None:
    for name in what:
        path = Path(site.running.place.run_dir) / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _converge(site: Site, what: str, verb: str, answered: bool, command: str, unmarked: bool) -> None:
    """A new daemon, with nobody's help, and the next command."""
    require(not site.doubled(), f"{what}: two live instances: {site.doubled()}")
    site.start()
    client = site.client()
    known = {row["name"] for row in client.ask("status")["processes"]}
    require(known == NAMES or (verb == "up" and not answered), f"{what}: the definition is known: {known}")
    if answered:
        _expect_kept(site, client, what, verb)
    if command == "up":
        client.ask("up", cluster=site.cluster(*_specs(site, unmarked=unmarked)))
        client.ask("wait", **{"for": "ready"})
        require(site.leaders().keys() == NAMES, f"{what}: up makes {sorted(site.leaders())} live")
    elif command == "status":
        until(lambda: _is_true(site, client), 10, f"{what}: status comes to agree with /proc")
    require(not site.doubled(), f"{what}: two live instances after {command}: {site.doubled()}")
    client.ask("down")


def _is_true(site: Site, client: Client) -> bool:
    """Whether nothing is under way, and what is said to run is what runs."""
    rows = client.ask("status")["processes"]
    if any(row["state"] in ("waiting", "starting", "stopping", "backoff") for row in rows):
        return False
    said = {row["name"]: row["pid"] for row in rows if row["state"] == "ready"}
    return said == {name: seen.pid for name, [seen, *_] in site.leaders().items()}


def _expect_kept(site: Site, client: Client, what: str, verb: str) -> None:
    """What a client was told before the crash is still so after it."""
    if verb == "stop":
        require(not site.live(), f"{what}: stop was answered, and {sorted(site.leaders())} run")
        return
    until(lambda: site.leaders().keys() == NAMES, 5, f"{what}: {verb} was answered, so all of it comes to live")
    if verb == "reload":
        old = [seen.service for seen in site.live() if seen.is_leader and seen.command.endswith("sleep 600 ")]
        require(set(old) <= {"c"}, f"{what}: reload was answered, and {old} are as before")


def _expect_nothing_left(site: Site, what: str) -> None:
    assert site.running.process is not None
    site.running.process.wait(10)
    left = [f"{seen.pid} {seen.command}" for seen in site.live()]
    require(not left, f"{what}: left after down: {left}")
    found = os.listdir(site.running.place.run_dir) if os.path.exists(site.running.place.run_dir) else []
    require(not found, f"{what}: files left after down: {found}")
