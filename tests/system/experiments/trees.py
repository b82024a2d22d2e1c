"""Stopping what does not want to be stopped: a stop is done when the whole tree is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from novad.core.spec import ProcessSpec, Stop
from tests.novad.daemon.running import Client
from tests.system import oracle
from tests.system.board import Skip, experiment, require, until
from tests.system.oracle import Seen
from tests.system.site import Site

# A tail keeps the token in its command line where the environment is cleared.
HOLD = "tail -f $BELL.$SITE"
STORM = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for number in range(400):
    if os.fork() == 0:
        os.setsid() if number % 2 else None
        time.sleep(600)
        os._exit(0)
    time.sleep(0.001)
time.sleep(600)
"""
# Shape of a tree -> what the leader does before it sleeps, and how many processes the tree has at least.
SHAPES: dict[str, tuple[str, int]] = {
    "double fork": (f"({HOLD} & );", 2),
    "setsid": (f"setsid {HOLD} &", 2),
    "setsid and double fork": (f"(setsid {HOLD} & );", 2),
    "new group": (f"set -m; {HOLD} &", 2),
    "member that ignores TERM": ("(trap '' TERM; while :; do sleep 1; done) &", 2),
    "closed descriptors": (f'(for n in 3 4 5 6 7 8 9; do eval "exec $n>&-"; done; exec setsid {HOLD}) &', 2),
    "cleared environment": (f"env -i PATH=$PATH {HOLD} &", 2),
    "fork storm": ('"$PYTHON" -S -c "$STORM" &', 20),
}
STOP_S = 1.0


def _tree(site: Site, shape: str) -> ProcessSpec:
    script, _ = SHAPES[shape]
    env = {"PYTHON": sys.executable, "STORM": STORM}
    name = shape.replace(" ", "-")
    # Members go without VICTIM, so that one that leads a session is not taken for a second instance.
    whole = f'V=$VICTIM; unset VICTIM; {{ {script} }}; exec env VICTIM="$V" sleep 600'
    return site.shell(name, whole, env=env, stop=Stop("TERM", STOP_S))


def _stop(site: Site, client: Client, specs: list[ProcessSpec]) -> None:
    client.ask("stop")


def _down(site: Site, client: Client, specs: list[ProcessSpec]) -> None:
    client.ask("down")


def _restart_and_stop(site: Site, client: Client, specs: list[ProcessSpec]) -> None:
    """The first generation must be gone when the restart is answered."""
    before = {(seen.pid, seen.started) for seen in site.live()}
    client.ask("restart")
    left = [seen for seen in site.live() if (seen.pid, seen.started) in before]
    require(not left, f"left after restart: {_told(left)}")
    require(not site.doubled(), f"doubled by restart: {site.doubled()}")
    client.ask("stop")


def _crash_and_up(site: Site, client: Client, specs: list[ProcessSpec]) -> None:
    """Adopted as they are, not doubled; and the stop finds their trees as well as before."""
    before = {seen.pid for found in site.leaders().values() for seen in found}
    site.crash()
    site.start()
    client = site.client()
    client.ask("up", cluster=site.cluster(*specs))
    client.ask("wait", **{"for": "ready"})
    require(not site.doubled(), f"doubled after kill -9 and up: {site.doubled()}")
    after = {seen.pid for found in site.leaders().values() for seen in found}
    require(before <= after, "kill -9 of novad and up restart nothing")
    client.ask("down")


def _crash_and_down(site: Site, client: Client, specs: list[ProcessSpec]) -> None:
    site.crash()
    site.start()
    site.client().ask("down")


ACTIONS: dict[str, Callable[[Site, Client, list[ProcessSpec]], None]] = {
    "stop": _stop,
    "restart": _restart_and_stop,
    "down": _down,
    "kill -9 and up": _crash_and_up,
    "kill -9 and down": _crash_and_down,
}


def _told(left: list[Seen]) -> str:
    return ", ".join(f"pid {seen.pid} of {seen.service or '?'} ({seen.command.strip()[:60]})" for seen in left)


@experiment(
    "R08",
    "trees that cling: 8 shapes, 5 ways to end them",
    short={"actions": ("restart", "kill -9 and down"), "shapes": tuple(SHAPES)},
    full={"actions": tuple(ACTIONS), "shapes": tuple(SHAPES)},
    controls={"a survivor": {"actions": ("stop",), "shapes": ("setsid",), "survivor": True}},
)
def end_trees(site: Site, actions: tuple[str, ...], shapes: tuple[str, ...], survivor: bool = False) -> str:
    """All shapes at once under one daemon, a new daemon for each way."""
    (site.folder / f"bell.{site.token}").touch()
    slowest_s = 0.0
    for action in actions:
        specs = [_tree(site, shape) for shape in shapes]
        client = site.up(*specs)
        if survivor:
            _spawn_stranger(site)
        _await_trees(site, sum(SHAPES[shape][1] for shape in shapes))
        began_s = time.monotonic()
        ACTIONS[action](site, client, specs)
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        left = site.live()
        require(not left, f"left after {action}: {_told(left)}")
        site.crash()
    return f"{len(actions)} x {len(shapes)} trees, 0 survivors, 0 doubled, slowest {slowest_s:.1f} s"


def _await_trees(site: Site, count: int) -> None:
    until(lambda: len(site.live()) >= count, 10, f"{count} processes have begun")


def _spawn_stranger(site: Site) -> None:
    """A process with the token that is no descendant of novad: what a missed member looks like."""
    site.others.append(subprocess.Popen(["sleep", "600"], env={**os.environ, "SITE": site.token}))


@dataclass(frozen=True, slots=True)
class Stubborn:
    """A victim, its stop timeout, and how it must end: by itself, or by KILL."""

    script: str
    timeout_s: float
    is_killed: bool
    is_stopped_first: bool = False


STUBBORN = {
    "ignores-TERM": Stubborn("trap '' TERM; while :; do sleep 1; done", 1.0, True),
    "stopped-before": Stubborn("exec sleep 600", 5.0, False, is_stopped_first=True),
    "stops-in-handler": Stubborn(
        "trap 'sleep 0.3; kill -STOP $$; exit 0' TERM; while :; do sleep 0.05; done", 1.0, True
    ),
    "slow": Stubborn("trap 'sleep 1; exit 0' TERM; while :; do sleep 0.05; done", 3.0, False),
}


@experiment(
    "R09",
    "stop of what ignores TERM, is stopped, stops itself, or is slow",
    short={"rounds": 1, "slack_s": 1.0},
    full={"rounds": 5, "slack_s": 1.0},
    controls={"a bound that cannot be kept": {"slack_s": -1.0}},
)
def stop_stubborn(site: Site, rounds: int, slack_s: float) -> str:
    """Each within its stop timeout and a second, with the right reason."""
    specs = [site.shell(name, it.script, stop=Stop("TERM", it.timeout_s)) for name, it in STUBBORN.items()]
    client = site.up(*specs)
    worst: dict[str, float] = {}
    for _ in range(rounds):
        site.bell.hear(0)
        for name, it in STUBBORN.items():
            pid = site.leaders()[name][0].pid
            if it.is_stopped_first:
                os.kill(pid, signal.SIGSTOP)
                # A stop is not instant: TERM sent right after it might win.
                until(lambda pid=pid: getattr(oracle.look(pid), "state", "") == "T", 5, "the victim stops")
            began_s = time.monotonic()
            [answer] = client.ask("stop", names=[name])["stopped"]
            took_s = time.monotonic() - began_s
            worst[name] = max(worst.get(name, 0.0), took_s)
            require(took_s <= it.timeout_s + slack_s, f"{name} stopped within its bound: {took_s:.2f} s")
            killed = "SIGKILL" in answer["how"]
            require(
                killed == it.is_killed, f"{name}: {'killed' if it.is_killed else 'not killed'}; {answer['how']}"
            )
            require(not [seen for seen in site.live() if seen.service == name], f"{name} is gone")
        client.ask("start", names=[])
        client.ask("wait", **{"for": "ready"})
    return ", ".join(f"{name} {took_s:.2f} s" for name, took_s in worst.items())


@dataclass(frozen=True, slots=True)
class Freezer:
    """A cgroup with a freezer: `switch` takes `freeze` and `thaw`, `shows` holds `frozen` once it is (cgroups(7))."""

    folder: Path
    switch: str
    freeze: str
    thaw: str
    shows: str
    frozen: str

    def hold(self, pid: int) -> None:
        (self.folder / "cgroup.procs").write_text(str(pid))
        (self.folder / self.switch).write_text(self.freeze)
        until(lambda: self.frozen in (self.folder / self.shows).read_text(), 5, "the cgroup freezes")

    def release(self) -> None:
        (self.folder / self.switch).write_text(self.thaw)

    def remove(self) -> bool:
        """Whether it is gone; only an empty one can be removed."""
        try:
            self.folder.rmdir()
        except OSError:
            return False
        return True


# The file that shows that there is such a freezer, where its cgroups are, and what a `Freezer` takes.
FREEZERS = {
    "/sys/fs/cgroup/freezer/cgroup.procs": ("freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN"),
    "/sys/fs/cgroup/cgroup.controllers": ("cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"),
}


@contextlib.contextmanager
def _freezer(site: Site) -> Iterator[Freezer]:
    """A cgroup of the site's own, thawed and removed afterwards. Raises `Skip` where none can be made."""
    kinds = [(Path(path).parent, kind) for path, kind in FREEZERS.items() if Path(path).exists()]
    if not kinds:
        raise Skip("no freezer of cgroups below /sys/fs/cgroup")
    parent, kind = kinds[0]
    folder = parent / f"novad-board-{site.token[:8]}"
    try:
        folder.mkdir()
    except OSError as error:
        raise Skip(f"no cgroup can be made: {folder}: {error.strerror}") from None
    freezer = Freezer(folder, *kind)
    try:
        yield freezer
    finally:
        freezer.release()
        site.running.end()
        site.end_victims()
        until(freezer.remove, 5, f"{folder} is left by all")


@experiment(
    "R09-frozen",
    "stop of what a cgroup keeps frozen",
    short={"slack_s": 1.0, "thawed_s": 1.0},
    full={"slack_s": 1.0, "thawed_s": 1.0},
    controls={"never thawed": {"slack_s": 1.0, "thawed_s": 1.0, "thaw": False}},
)
def stop_frozen(site: Site, slack_s: float, thawed_s: float, thaw: bool = True) -> str:
    """`stop` answers within its bound and names who is left; after the thaw that one ends by itself."""
    specs = [site.sleeper(name, stop=Stop("TERM", STOP_S)) for name in ("frozen", "free")]
    with _freezer(site) as freezer:
        client = site.up(*specs)
        pid = site.leaders()["frozen"][0].pid
        freezer.hold(pid)
        began_s = time.monotonic()
        answer = client.ask("stop")
        took_s = time.monotonic() - began_s
        require(took_s <= STOP_S + slack_s, f"stop answers within its bound: {took_s:.2f} s")
        require([item["pid"] for item in answer["survivors"]] == [pid], f"it names who is left: {answer}")
        require([item["name"] for item in answer["stopped"]] == ["free"], f"the other is stopped: {answer}")
        said = site.running.text("frozen", "n")
        require(any("frozen by its cgroup" in line for line in said), f"the log says that it is frozen: {said}")
        require("frozen by its cgroup" in answer["survivors"][0]["held"], f"and so does the answer: {answer}")
        began_s = time.monotonic()
        if thaw:
            freezer.release()
        until(lambda: not site.live(), thawed_s, "it ends once it is thawed")
        ended_s = time.monotonic() - began_s
        until(
            lambda: client.ask("status", names=["frozen"])["processes"][0]["state"] == "stopped", 5, "novad knows"
        )
    return f"answered after {took_s:.2f} s with its survivor, ended {ended_s * 1000:.0f} ms after the thaw"
