"""A workflow of many steps whose service is killed before and after each: it ends done or undone, never between."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from nova import context, rpc
from nova.db import instances, session
from nova.flags import FLAGS

from tests.system.board import experiment, require, until
from tests.system.bus import PATHS, ROOT, Bus
from tests.system.site import Site

WAVE = 8
# An instance that is built and ended passes 40 points where nobody dies; every death adds some.
POINTS = range(1, 41)
PATIENCE_S = 60.0
# Writers of one database: some wait for greenlets of their process, some for other processes.
PROCESSES, GREENLETS = 4, 5
GAP_S = 0.1


@experiment(
    "R40",
    "a service killed before and after each step of building and ending an instance, and again in its recovery; "
    "twenty writers of one database",
    short={"deaths": [[3], [9], [10], [14], [15, 22], [31]], "writes": 25},
    full={
        "writes": 200,
        "deaths": [[point] for point in POINTS]
        + [[point, point + more] for point in POINTS for more in (2, 5, 9)],
    },
    controls={
        "nobody looks for what was interrupted": {"deaths": [[9], [12]], "remembers": False, "wait_s": 8.0},
        "the library waits for locks": {"deaths": [], "library_waits": True},
    },
)
def kill_at_every_step(
    site: Site,
    deaths: Sequence[Sequence[int]],
    writes: int,
    remembers: bool = True,
    wait_s: float = PATIENCE_S,
    library_waits: bool = False,
) -> str:
    """Each host has one instance and its own deaths; eight hosts live at a time."""
    gap_s = _write_at_once(site, writes, library_waits)
    hosts = {f"c{number}": points for number, points in enumerate(deaths)}
    manager = "--compute_manager=tests.system.mortal.Mortal"
    bus = Bus(
        site, 0, others={"network": "nova-network --host=network"},
        idle={
            host: f"nova-compute --host={host} {manager} --die_at={','.join(map(str, points))} --remembers={remembers}"
            for host, points in hosts.items()
        },
    )  # fmt: skip
    began_s = time.monotonic()
    names = iter(hosts)
    while wave := list(itertools.islice(names, WAVE)):
        _pass_wave(bus, {host: hosts[host] for host in wave}, wait_s)
    # A second death may lie beyond the end of the workflow.
    died = sum(_points(bus, host) >= point for host, points in hosts.items() for point in points)
    return (
        f"{len(hosts)} workflows with {died} deaths, all done and all undone again, "
        f"0 leftovers, {time.monotonic() - began_s:.1f} s; {PROCESSES * GREENLETS} writers of one database, "
        f"0 locked out, the longest hub gap {gap_s * 1000:.0f} ms"
    )


def _pass_wave(bus: Bus, deaths: Mapping[str, Sequence[int]], wait_s: float) -> None:
    wave = list(deaths)
    bus.client.ask("start", names=wave)
    bus.client.ask("wait", names=wave, **{"for": "ready"})
    with _here(bus):
        rows = {host: _instance(host) for host in wave}
        _order(rows, "run_instance", wait_s)
        until(lambda: _states(bus, wave) <= {"running", "error"}, wait_s, "all are built, or given up")
        require(_states(bus, wave) == {"running"}, f"all run: {_states(bus, wave)}")
        require(_left(bus, wave) == (len(wave),) * 2, f"one guest, one address each: {_left(bus, wave)}")
        _order(rows, "terminate_instance", wait_s)
        until(lambda: _states(bus, wave) == {"terminated"}, wait_s, "all are ended")
    until(lambda: all(_points(bus, host) >= deaths[host][0] for host in wave), wait_s, "every host has died")
    for host in wave:
        bus.await_ready(host)
    until(lambda: _left(bus, wave) == (0, 0), wait_s, "no guest and no address is left")
    require(_states(bus, wave) == {"terminated"}, f"what is ended stays so: {_states(bus, wave)}")
    bus.client.ask("stop", names=wave)


def _order(rows: Mapping[str, int], method: str, timeout_s: float) -> None:
    for host, row in rows.items():
        rpc.Client("compute", host, timeout_s).cast(context.get_admin_context(), method, instance_id=row)


@contextmanager
def _here(bus: Bus) -> Iterator[None]:
    """This process on the bus, and with its database."""
    url = f"sqlite:///{bus.folder}/nova.sqlite"
    broker, _, _ = bus.flags()
    password = f"{bus.folder}/broker/password"
    with FLAGS.override(
        broker=broker.partition("=")[2],
        broker_password_file=password,
        state_path=str(bus.folder),
        sql_connection=url,
    ):
        try:
            yield
        finally:
            rpc.cleanup()
            session.dispose()


def _instance(host: str) -> int:
    """A row as the scheduler leaves it when it has chosen a host."""
    with session.begin() as s:
        (made,) = instances.create(
            s, 1, reservation_id=f"r-{host}", project_id="nova", user_id="u", image_id="ami-00000001",
            instance_type="m1.tiny", vcpus=1, memory_mb=512, disk_gb=0, security_groups=["default"],
            host=host, task=instances.SCHEDULED,
        )  # fmt: skip
        return made.id


def _states(bus: Bus, hosts: list[str]) -> set[str]:
    marks = ",".join("?" * len(hosts))
    with closing(sqlite3.connect(f"{bus.folder}/nova.sqlite", timeout=10)) as database:
        return {
            state for (state,) in database.execute(f"select state from instances where host in ({marks})", hosts)
        }


def _left(bus: Bus, hosts: list[str]) -> tuple[int, int]:
    """Guests on the hosts, addresses in use."""
    guests = sum(len(list((bus.folder / "instances" / host).glob("[0-9]*"))) for host in hosts)
    with closing(sqlite3.connect(f"{bus.folder}/nova.sqlite", timeout=10)) as database:
        (used,) = database.execute("select count(*) from fixed_ips where instance_id is not null").fetchone()
    return guests, used


def _points(bus: Bus, host: str) -> int:
    return len((bus.folder / f"points.{host}").read_text().splitlines())


def _write_at_once(site: Site, writes: int, library_waits: bool) -> float:
    """The longest time that a hub stood still, s, while every writer committed `writes` times."""
    url = f"sqlite:///{site.folder}/counter.sqlite"
    writers = [
        subprocess.Popen(
            [
                sys.executable, "-m", "tests.system.writers", str(GREENLETS), str(writes),
                f"--sql_connection={url}", f"--library_waits={library_waits}",
            ],
            cwd=ROOT, env={**os.environ, **PATHS}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]  # fmt: skip
    site.others += writers
    for writer in writers:
        assert writer.stdout is not None
        require(writer.stdout.readline() == b"ready\n", f"a writer is ready (exit {writer.poll()})")
    with closing(sqlite3.connect(f"{site.folder}/counter.sqlite", timeout=10)) as database, database:
        database.execute("insert into counter values (0)")
    said = [json.loads(out) for out in _begin_all(writers)]
    gap_s = max(one["gap_s"] for one in said)
    require(gap_s <= GAP_S, f"no hub stands still for more than {GAP_S:g} s: {gap_s:.3f} s")
    errors = [error for one in said for error in one["errors"]]
    require(not errors, f"no writer is told that the database is locked: {len(errors)} were, {errors[:2]}")
    with closing(sqlite3.connect(f"{site.folder}/counter.sqlite", timeout=10)) as database:
        (counted,) = database.execute("select value from counter").fetchone()
    wanted = PROCESSES * GREENLETS * writes
    require(counted == wanted, f"every write is there once: {counted} of {wanted}")
    return float(gap_s)


def _begin_all(writers: Sequence[subprocess.Popen[bytes]]) -> list[bytes]:
    """Let all begin; what each says in the end."""
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    return [writer.communicate(timeout=120)[0] for writer in writers]
