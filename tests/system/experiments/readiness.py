"""Dependencies and readiness: who may start when, who may stop when, and what a probe may cost."""

from __future__ import annotations

import itertools
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from novad.core.spec import Backoff, Dependency, Health, HttpProbe, Probe, ProcessSpec, Stop
from tests.novad.daemon.running import Client
from tests.system import oracle
from tests.system.board import experiment, require, until
from tests.system.site import Ring, Site

Edges = Mapping[str, tuple[str, ...]]

# Each says itself, in one FIFO and in this order, that it begins, that it is ready or done, and that it goes.
SERVICE = """
trap 'echo "$VICTIM.gone $$" >> "$BELL"; exit 0' TERM
echo "$VICTIM $$" >> "$BELL"
[ "$DELAY" = 0 ] || sleep "$DELAY"
echo "$VICTIM.ready $$" >> "$BELL"
echo it is ready
sleep 600 & wait
"""
JOB = """
echo "$VICTIM $$" >> "$BELL"
[ "$DELAY" = 0 ] || sleep "$DELAY"
echo "$VICTIM.ready $$" >> "$BELL"
"""
DIAMOND: Edges = {"s0": (), "s1": ("s0",), "s2": ("s0",), "s3": ("s1", "s2")}


def _graphs(nodes: int, count: int) -> Iterator[Edges]:
    """The diamond, then random graphs without a cycle, sparse ones and dense ones."""
    yield DIAMOND
    dice = random.Random(23)
    # Every fifth is a one-shot.
    names = [f"{'j' if number % 5 == 0 else 's'}{number}" for number in range(nodes)]
    for _ in range(count):
        order = dice.sample(names, nodes)
        most = dice.choice([1, 2, 4])
        yield {
            name: tuple(dice.sample(order[:index], min(index, dice.randint(0, most))))
            for index, name in enumerate(order)
        }


def _specs(site: Site, edges: Edges, ignored: str = "") -> list[ProcessSpec]:
    """A process of each node. What waits for `ignored` is not told so: a supervisor that forgets an edge."""
    found = []
    for number, (name, needs) in enumerate(edges.items()):
        is_job = name.startswith("j")
        spec = site.spec(
            name, "/bin/sh", "-c", JOB if is_job else SERVICE, env={"DELAY": "0.02" if number % 7 == 0 else "0"},
            oneshot=is_job, restart="no", ready=None if is_job else Probe(log="it is ready"),
        )  # fmt: skip
        after = (Dependency(need, "done" if need.startswith("j") else "ready") for need in needs)
        found.append(replace(spec, after=tuple(item for item in after if item.name != ignored)))
    return found


def _load(site: Site, client: Client, specs: list[ProcessSpec]) -> None:
    """These instead of what is loaded; none of them starts by that."""
    cluster = site.cluster(*(replace(spec, autostart=False) for spec in specs))
    client.ask("up", cluster=cluster, start=False)
    client.ask("reload", cluster=cluster, dry_run=False)


def _check_order(edges: Edges, rings: list[Ring]) -> int:
    """Every need is ready before who needs it begins, and goes after it is gone; how many edges were checked."""
    at = {ring.name: index for index, ring in enumerate(rings)}
    require(len(at) == len(rings), f"nothing starts twice: {[ring.name for ring in rings]}")
    for name, needs in edges.items():
        require(name in at and f"{name}.ready" in at, f"{name} has started")
        for need in needs:
            require(at[f"{need}.ready"] < at[name], f"{name} begins after {need} is ready")
            if not name.startswith("j") and not need.startswith("j"):
                require(at[f"{name}.gone"] < at[f"{need}.gone"], f"{need} goes after {name}")
    return sum(map(len, edges.values()))


def _refuse_cycles(site: Site, sizes: tuple[int, ...]) -> None:
    """The whole cycle is printed, and nothing is started."""
    for size in sizes:
        names = [f"c{number}" for number in range(size)]
        site.write_config(
            "".join(
                f'[services.{name}]\ncommand = "sleep 600"\nafter = ["{names[(number + 1) % size]}"]\n'
                for number, name in enumerate(names)
            )
        )
        up = site.novad("up", "-d")
        _, said = up.communicate(timeout=60)
        require(up.returncode == 78, f"a cycle of {size} is exit 78: {up.returncode} {said}")
        found = re.search(r"c\d+(?: -> c\d+)+", said)
        printed = found[0].split(" -> ") if found else []
        require(sorted(printed[1:]) == sorted(names), f"the whole cycle of {size} is printed: {said}")
        require(all(pair in _pairs(names) for pair in itertools.pairwise(printed)), f"in its order: {printed}")
        require(not site.daemons() and not site.live(), f"a cycle of {size} starts nothing")


def _pairs(names: list[str]) -> set[tuple[str, str]]:
    return set(zip(names, [*names[1:], names[0]], strict=True))


@experiment(
    "R23",
    "cycles, and random graphs of services and one-shots",
    short={"nodes": 20, "count": 4, "cycles": (1, 2, 50)},
    full={"nodes": 50, "count": 200, "cycles": (1, 2, 50)},
    controls={"an edge that novad does not know": {"count": 0, "ignored": "s0"}},
)
def order(site: Site, nodes: int, count: int, cycles: tuple[int, ...], ignored: str = "") -> str:
    """Starts follow the arrows and stops run against them, by what the victims themselves wrote."""
    _refuse_cycles(site, cycles)
    site.start()
    client = site.client()
    checked = 0
    for edges in _graphs(nodes, count):
        _load(site, client, _specs(site, edges, ignored))
        client.ask("start", names=list(edges))
        require(client.ask("wait", **{"for": "ready"}) == {"met": True}, f"all get ready: {edges}")
        client.ask("stop")
        checked += _check_order(edges, site.bell.hear_for(0.01))
    require(not site.live(), "nothing is left")
    return (
        f"cycles of {', '.join(map(str, cycles))} printed; {count + 1} graphs, {checked} edges in order both ways"
    )


# --- Readiness ----------------------------------------------------------------------------------------------

# Deaf to everything that a probe asks, and it says when it goes.
DEAF = """trap 'echo "$VICTIM.gone $$" >> "$BELL"; exit 0' TERM; echo "$VICTIM $$" >> "$BELL"; sleep 600 & wait"""
NOTIFIER = """
import os, signal, socket
with open(os.environ["BELL"], "a") as bell:
    bell.write(f"notifier {os.getpid()}\\n")
def say(*_):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
signal.signal(signal.SIGUSR1, say)
while True:
    signal.pause()
"""
STRANGER = """
import os, socket, sys
if sys.argv[2] != "":
    os.setgroups([])
    os.setuid(int(sys.argv[2]))
try:
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", sys.argv[1])
except PermissionError:
    print("refused")
"""


def _unready(site: Site, timeout_s: float, port: int) -> list[ProcessSpec]:
    """Never ready, each in another way; `slow` is in time, just so."""
    hang = ("/bin/sh", "-c", "sleep 600 & sleep 600")
    probes = {
        "never": Probe(log="it is never said"),
        "hang-exec": Probe(exec=hang),
        "hang-http": Probe(http=HttpProbe(f"http://127.0.0.1:{port}/")),
        "hang-both": Probe(exec=hang, log="it is never said"),
    }
    return [
        site.spec(
            name, "/bin/sh", "-c", DEAF, ready=probe, ready_timeout_s=timeout_s, restart="no", stop=Stop("TERM", 5.0)
        )
        for name, probe in probes.items()
    ]  # fmt: skip


def _check_timeouts(site: Site, timeout_s: float, slack: float) -> float:
    """Each is given up at its timeout, and no probe outlives it; the largest deviation."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        specs = _unready(site, timeout_s, mute.getsockname()[1])
        slow = site.spec(
            "slow", "/bin/sh", "-c", SERVICE, env={"DELAY": f"{timeout_s * 0.6:g}"}, restart="no",
            ready=Probe(log="it is ready"), ready_timeout_s=timeout_s,
        )  # fmt: skip
        client = site.client()
        client.ask("up", cluster=site.cluster(*specs, slow))
        names = {spec.name for spec in specs}
        wanted = names | {f"{name}.gone" for name in names} | {"slow.ready"}
        rings = site.bell.await_all(wanted, timeout_s * 3 + 5)
        require(rings.keys() >= wanted, f"all were given up: not {sorted(wanted - rings.keys())}")
        worst = 0.0
        for name in names:
            took_s = rings[f"{name}.gone"].at_s - rings[name].at_s
            worst = max(worst, abs(took_s / timeout_s - 1))
            require(
                abs(took_s / timeout_s - 1) <= slack, f"{name}: given up after {took_s:.2f} of {timeout_s:g} s"
            )
        until(lambda: {seen.service for seen in site.live()} == {"slow"}, 2, "probes end with what they ask")
        [row] = client.ask("status", names=["slow"])["processes"]
        require(row["state"] == "ready" and row["restarts"] == 0, f"who is slow and in time is ready: {row}")
        client.ask("stop")
        require(not site.live(), f"nothing is left: {site.live()}")
    return worst


def _stop_in_probes(site: Site, client: Client) -> None:
    """A stop in the middle of hanging probes leaves no process and no descriptor of theirs."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        specs = _unready(site, 60.0, mute.getsockname()[1])
        _load(site, client, specs)
        before = oracle.descriptors(site.pid)
        client.ask("start", names=[spec.name for spec in specs])
        until(lambda: len([seen for seen in site.live() if "sleep 600" in seen.command]) >= 8, 10, "probes hang")
        client.ask("stop")
        require(not site.live(), f"nothing is left of probes: {site.live()}")
        until(lambda: oracle.descriptors(site.pid) <= before, 2, f"descriptors go back to {before}")


def _flap(site: Site, client: Client, rounds: int) -> None:
    """A check that fails every other time harms nobody; one that fails three times in a row does."""
    toggle = f"echo >> {site.folder}/checks; [ ! -e {site.folder}/ill ] && "
    toggle += f"if [ -e {site.folder}/odd ]; then rm {site.folder}/odd; else touch {site.folder}/odd; exit 1; fi"
    health = Health(Probe(exec=("/bin/sh", "-c", toggle)), 0.05, 2.0, 3)
    flapping = site.sleeper("flapping", health=health, backoff=Backoff(0.01, 0.01, 0.0), restart="always")
    checks = Path(f"{site.folder}/checks")
    _load(site, client, [flapping])
    client.ask("start", names=["flapping"])
    require("flapping" in site.bell.await_all({"flapping"}, 5), "it starts")
    until(lambda: checks.exists() and len(checks.read_text()) >= rounds, 60, f"{rounds} checks")
    require(not site.bell.hear(0), "every other failure restarts nothing")
    (site.folder / "ill").touch()
    require("flapping" in site.bell.await_all({"flapping"}, 10), "three failures in a row restart it")
    client.ask("stop")


def _notify_from_strangers(site: Site, client: Client, is_child: bool) -> int:
    """READY from a process that descends from no service, of this user and of another, is nobody's; how many."""
    spec = site.spec("notifier", sys.executable, "-S", "-c", NOTIFIER, ready=Probe(notify=True), restart="no")
    after = replace(site.sleeper("after"), after=(Dependency("notifier", "ready"),))
    _load(site, client, [spec, after])
    client.ask("start", names=["notifier", "after"])
    require("notifier" in site.bell.await_all({"notifier"}, 10), "the notifier starts")
    pid = site.leaders()["notifier"][0].pid
    path = Path(f"/proc/{pid}/environ").read_bytes().split(b"NOTIFY_SOCKET=")[1].split(b"\0")[0].decode()
    users = ["", "65534"] if os.getuid() == 0 else [""]
    for user in users:
        subprocess.run([sys.executable, "-S", "-c", STRANGER, path, user], check=True, stdout=subprocess.DEVNULL)
    if is_child:
        os.kill(pid, 10)
    # An answer to a later request: whatever was sent before it has been read.
    client.ask("status")
    require(not site.bell.hear(0.3), "nobody starts by a stranger's READY")
    [row] = client.ask("status", names=["notifier"])["processes"]
    require(row["state"] == "starting", f"a stranger's READY is not believed: {row['state']}")
    os.kill(pid, 10)
    require("after" in site.bell.await_all({"after"}, 10), "the child's own READY is believed")
    client.ask("stop")
    return len(users)


@experiment(
    "R23-ready",
    "never ready, slow, flapping, hanging probes, and a stranger's READY",
    short={"timeout_s": 1.0, "slack": 0.3, "rounds": 10},
    full={"timeout_s": 5.0, "slack": 0.1, "rounds": 200},
    controls={
        "a timeout that is another": {"slack": -1.0},
        "a stranger that is the child": {"is_child": True},
    },
)
def readiness(site: Site, timeout_s: float, slack: float, rounds: int, is_child: bool = False) -> str:
    """Given up in time, no earlier and no later; no probe is left behind; only the child speaks for itself."""
    began_s = time.monotonic()
    site.start()
    client = site.client()
    worst = _check_timeouts(site, timeout_s, slack)
    _stop_in_probes(site, client)
    _flap(site, client, rounds)
    strangers = _notify_from_strangers(site, client, is_child)
    require(not site.live(), "nothing is left")
    seconds = time.monotonic() - began_s
    return f"timeouts {worst:+.1%} at most, 0 probes left, {rounds} flaps, {strangers} strangers, {seconds:.1f} s"
