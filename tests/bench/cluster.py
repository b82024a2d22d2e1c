"""The repository's own Nova cluster: how long until it is ready, and how much memory it takes.

    python tests/bench/cluster.py [--runs N]

novad preloaded, novad with NOVAD_PRELOAD=0, honcho and supervisor run the same eight processes: the others get argv and
environment of those that novad has executed, without what is novad's own. Readiness is seen from outside, in the same
way for all: a row of the database says `ready` for each service on the queue, and three ports are open. Memory is
the PSS of the services ten seconds later, with the template among them; the supervisor's own is apart.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import platform
import shlex
import shutil
import socket
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from novad.host import proc  # noqa: E402
from tests.bench.peers import Honcho, Peer, Supervisor  # noqa: E402
from tests.system import oracle  # noqa: E402
from tests.system.client import Project, new_project  # noqa: E402

LOCAL = '[services.api]\nports = { ec2 = "auto" }\n[services.objectstore]\nports = { s3 = "auto" }\n'
ON_THE_QUEUE = 5
PATIENCE_S = 60.0
SETTLED_S = 10.0
LOOK_S = 0.005
# What novad adds to the environment of a service.
OURS = ("NOVAD_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")


@dataclass(frozen=True)
class Recipe:
    """What a service is executed with."""

    argv: list[str]
    env: dict[str, str]


@dataclass(frozen=True)
class Figure:
    ready_s: float
    services_bytes: float
    template_bytes: float
    supervisor_bytes: float


@contextlib.contextmanager
def project() -> Iterator[Project]:
    with tempfile.TemporaryDirectory(prefix="nb", dir="/tmp") as folder, new_project(Path(folder)) as made:
        shutil.copy(ROOT / "nova.toml", folder)
        made.write(LOCAL, "nova.local.toml")
        made.environ["PATH"] = f"{Path(sys.executable).parent}:{made.environ['PATH']}"
        yield made


@dataclass(frozen=True)
class Team:
    """The services, as novad executed them, and the ports of all."""

    recipes: dict[str, Recipe]
    ports: list[int]

    @property
    def state_path(self) -> str:
        return self.recipes["api"].env["NOVA_STATE_PATH"]


def until_ready(team: Team) -> float:
    """The time on CLOCK_MONOTONIC when everything was ready. Raises `TimeoutError`."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        if _rows(team.state_path) == ON_THE_QUEUE and all(map(_is_open, team.ports)):
            return time.monotonic()
        time.sleep(LOOK_S)
    raise TimeoutError(f"{_rows(team.state_path)} rows of {ON_THE_QUEUE} are ready, ports {team.ports}")


def _rows(state_path: str) -> int:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{state_path}/nova.sqlite?mode=ro", uri=True)) as link:
            return int(link.execute("SELECT count(*) FROM services WHERE state = 'ready'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def _is_open(port: int) -> bool:
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


def learn(made: Project) -> Team:
    """Run the cluster once, executed, and read what its processes were given. It keeps its ports from then on."""
    made.environ["NOVAD_PRELOAD"] = "0"
    up = made.novad("up", "-d", timeout_s=PATIENCE_S)
    assert up.returncode == 0, up.stdout + up.stderr
    found, ports = {}, []
    for name, row in made.processes().items():
        argv = _strings(row["pid"], "cmdline")
        env = dict(item.split("=", 1) for item in _strings(row["pid"], "environ"))
        found[name] = Recipe(argv, {key: value for key, value in env.items() if not key.startswith(OURS)})
        ports += row["ports"].values()
    _down(made)
    return Team(found, ports)


def under_novad(made: Project, team: Team, preload: bool) -> Figure:
    made.environ["NOVAD_PRELOAD"] = "1" if preload else "0"
    began_s = time.monotonic()
    starting = made.start("up", "-d")
    try:
        ready_s = until_ready(team) - began_s
        assert starting.wait(PATIENCE_S) == 0
        time.sleep(SETTLED_S)
        status = json.loads(made.novad("status", "--json").stdout)
        services, daemon = [row["pid"] for row in status["processes"]], status["daemon"]["pid"]
        helpers = set(proc.descendants(daemon)) - set(services)
        return Figure(ready_s, _pss(services), _pss(helpers), _pss([daemon]))
    finally:
        starting.communicate()
        _down(made)


def under_peer(kind: type[Peer], folder: Path, team: Team) -> Figure:
    peer = kind(folder)
    commands = {}
    for name, recipe in team.recipes.items():
        script = folder / name
        env = [f"{key}={value}" for key, value in recipe.env.items()]
        script.write_text(f"#!/bin/sh\nexec {shlex.join(['env', '-i', *env, *recipe.argv])}\n")
        script.chmod(0o755)
        commands[name.replace(".", "-")] = [str(script)]
    peer.configure(commands)
    began_s = time.monotonic()
    peer.start()
    try:
        ready_s = until_ready(team) - began_s
        time.sleep(SETTLED_S)
        argvs = [recipe.argv for recipe in team.recipes.values()]
        pids = set(peer.own_pids())
        services = {pid for pid in pids if _strings(pid, "cmdline") in argvs}
        assert len(services) == len(argvs), f"{kind.name} runs {len(services)} of {len(argvs)} services"
        return Figure(ready_s, _pss(services), 0, _pss(pids - services))
    finally:
        peer.end()


def _down(made: Project) -> None:
    down = made.novad("down")
    assert down.returncode == 0, down.stdout + down.stderr


def _strings(pid: int, name: str) -> list[str]:
    return Path(f"/proc/{pid}/{name}").read_bytes().decode().split("\0")[:-1]


def _pss(pids: Iterable[int]) -> int:
    return sum(map(oracle.pss_bytes, pids))


def run(made: Project, team: Team) -> dict[str, Figure]:
    """One figure for each contestant, each from an empty state."""
    found = {}
    peers = [kind for kind in (Honcho, Supervisor) if kind.is_here()]
    contestants: dict[str, Callable[[Path], Figure]] = {
        "novad, preloaded": lambda folder: under_novad(made, team, preload=True),
        "novad, executed": lambda folder: under_novad(made, team, preload=False),
    }
    for kind in peers:
        contestants[kind.name] = functools.partial(_under, kind, team)
    for name, measure in contestants.items():
        shutil.rmtree(team.state_path, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="nb", dir="/tmp") as folder:
            found[name] = measure(Path(folder))
    return found


def _under(kind: type[Peer], team: Team, folder: Path) -> Figure:
    return under_peer(kind, folder, team)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with project() as made:
        team = learn(made)
        figures = [run(made, team) for _ in range(runs)]
    print(
        f"medians of {runs}; Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'':18}{'ready s':>9}{'services MB':>13}{'template MB':>13}{'supervisor MB':>15}")
    medians = {}
    for name in figures[0]:
        of = [found[name] for found in figures]
        medians[name] = Figure(*(statistics.median(values) for values in zip(*map(astuple, of), strict=True)))
        sizes = [size / 1e6 for size in astuple(medians[name])[1:]]
        print(f"{name:18}{medians[name].ready_s:9.2f}{sizes[0]:13.1f}{sizes[1]:13.1f}{sizes[2]:15.1f}")
    forked, executed = medians["novad, preloaded"], medians["novad, executed"]
    ratio = (forked.services_bytes + forked.template_bytes) / executed.services_bytes
    print(f"PSS of services and template, preloaded to executed: {ratio:.2f}")
    print(f"ready, preloaded to executed: {forked.ready_s / executed.ready_s:.2f}")


if __name__ == "__main__":
    main()
