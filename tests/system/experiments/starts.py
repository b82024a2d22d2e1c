"""Starting: what cannot be executed, what dies at once, and the state in which a child begins."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from novad.core.spec import Backoff, ProcessSpec
from novad.host import stacks
from tests.novad.daemon.running import Client
from tests.system import oracle
from tests.system.board import experiment, quantile, require, spread_ms, until
from tests.system.site import UNTIRING, Site


@experiment(
    "R07",
    "five `novad up` at once, by two names of one directory",
    short={"rounds": 1, "many": 5},
    full={"rounds": 20, "many": 5},
    controls={"every up its own namespace": {"apart": True, "many": 2}},
)
def up_at_once(site: Site, rounds: int, many: int, apart: bool = False) -> str:
    script = """'echo "$VICTIM $$" >> "$BELL"; exec sleep 600'"""
    names = ["a", "b", "c"]
    tables = [
        f'[services.{name}]\ncommand = """/bin/sh -c {script}"""\nenv = {{ VICTIM = "{name}" }}\n'
        for name in names
    ]
    site.write_config("".join(tables))
    (site.folder / "other").symlink_to(site.folder)
    slowest_s = 0.0
    for number in range(rounds):
        began_s = time.monotonic()
        ups = []
        for index in range(many):
            where = f"{site.folder}/other/nova.toml" if index % 2 else f"{site.folder}/nova.toml"
            space = ["--namespace", f"n{index}"] if apart else []
            ups.append(site.novad(*space, "up", "-d", config=where))
        said = [up.communicate(timeout=60) for up in ups]
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        codes = [up.returncode for up in ups]
        require(codes == [0] * many, f"round {number}: exit codes {codes}: {said}")
        require(len(site.daemons()) == 1, f"round {number}: {len(site.daemons())} daemons")
        require(not site.doubled(), f"round {number}: doubled {site.doubled()}")
        require(sorted(site.leaders()) == names, f"round {number}: alive {sorted(site.leaders())}")
        site.ask("down")
        require(not site.live(), f"round {number}: {len(site.live())} left after down")
    return f"{rounds} rounds of {many}: 1 daemon, 1 copy each, all exit 0, slowest {slowest_s:.1f} s"


# Cause -> what the answer must name besides the path. ETXTBSY heals, so it is tried again.
CAUSES = {
    "no file": "no such file",
    "no interpreter": "interpreter",
    "no directory": "no such directory",
    "not executable": "permission denied",
    "a directory": "it is a directory",
    "too long": "too long",
    "no program": "neither a program nor a script",
    "being written": "busy",
    "a NUL": "null byte",
}


@contextlib.contextmanager
def _broken(site: Site) -> Iterator[dict[str, tuple[ProcessSpec, str]]]:
    """Nine processes that cannot be executed, each with the path that its error must name."""
    folder = site.folder
    for name, mode, text in (
        ("scripted", 0o755, "#!/no/such/interpreter\n"),
        ("plain", 0o644, "#!/bin/sh\n"),
        ("garbage", 0o755, "\x01\x02\n"),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(mode)
    shutil.copy("/bin/sleep", folder / "busy")
    specs = {
        "no file": (site.spec("no-file", f"{folder}/missing"), f"{folder}/missing"),
        "no interpreter": (site.spec("no-interpreter", f"{folder}/scripted"), "/no/such/interpreter"),
        "no directory": (_in_directory(site.spec("no-directory", "sleep", "1"), "/no/where"), "/no/where"),
        "not executable": (site.spec("not-executable", f"{folder}/plain"), f"{folder}/plain"),
        "a directory": (site.spec("a-directory", f"{folder}"), f"{folder}"),
        "too long": (site.spec("too-long", "sleep", "1" * 200_000), "sleep"),
        "no program": (site.spec("no-program", f"{folder}/garbage"), f"{folder}/garbage"),
        "being written": (site.spec("being-written", f"{folder}/busy", "600"), f"{folder}/busy"),
        "a NUL": (site.spec("a-nul", "sleep", "1\0"), "sleep"),
    }
    with (folder / "busy").open("r+b"):
        yield specs


def _in_directory(spec: ProcessSpec, folder: str) -> ProcessSpec:
    return replace(spec, cwd=folder)


@experiment(
    "R10",
    "nine reasons not to start",
    short={"answer_s": 0.5},
    full={"answer_s": 0.1},
    controls={"a program that can be executed": {"answer_s": 0.5, "heal": True}},
)
def refuse_to_start(site: Site, answer_s: float, heal: bool = False) -> str:
    """Each names its path at once, and is not tried again where that cannot help."""
    took_s = []
    with _broken(site) as broken:
        if heal:
            (site.folder / "missing").symlink_to("/bin/true")
        site.start()
        client = site.client()
        specs = [spec for spec, _ in broken.values()]
        client.ask("up", cluster=site.cluster(*specs), start=False)
        for cause, (spec, path) in broken.items():
            began_s = time.monotonic()
            client.ask("start", names=[spec.name])
            [why] = client.ask("why", names=[spec.name])["processes"]
            took_s.append(time.monotonic() - began_s)
            said = str(why["exits"][0]["error"] if why["exits"] else None)
            require(path in said and CAUSES[cause] in said.lower(), f"{cause} names {path}: {said}")
            wanted = ("backoff", "waiting", "starting") if cause == "being written" else ("failed",)
            require(why["state"] in wanted, f"{cause} is {wanted[0]}: {why['state']}")
            require(len(why["exits"]) <= 2, f"{cause}: {len(why['exits'])} tries")
    until(lambda: "being-written" in site.leaders(), 5, "what heals is started")
    require(max(took_s) <= answer_s, f"within {answer_s * 1000:g} ms: {max(took_s) * 1000:.0f} ms")
    return f"{len(CAUSES)} causes named, slowest {max(took_s) * 1000:.0f} ms"


@experiment(
    "R11",
    "a service that exits at once, beside ten healthy ones",
    short={"seconds": 3.0, "cpu_share": 0.25, "neighbour_s": 0.5, "stop_s": 0.5},
    full={"seconds": 60.0, "cpu_share": 0.05, "neighbour_s": 0.05, "stop_s": 0.05},
    controls={"restarts without a delay": {"backoff": Backoff(0.001, 0.001)}},
)
def crash_loop(
    site: Site,
    seconds: float,
    cpu_share: float,
    neighbour_s: float,
    stop_s: float,
    backoff: Backoff | None = None,
) -> str:
    """The starts keep to the schedule; nobody else feels it; a stop in the delay is immediate."""
    names = {f"v{number}" for number in range(10)}
    loop = site.shell("loop", "exit 1", give_up_after=1_000_000, autostart=False, backoff=backoff or Backoff())
    site.start()
    client = site.client()
    client.ask("up", cluster=site.cluster(loop, *(site.sleeper(name, **UNTIRING) for name in names)))
    client.ask("wait", names=sorted(names), **{"for": "ready"})
    pids = {name: ring.pid for name, ring in site.bell.await_all(names, 5).items()}
    cpu_s, until_s = oracle.cpu_s(site.pid), time.monotonic() + seconds
    client.ask("start", names=["loop"])
    starts, restarts_s = 0, []
    victim, killed_s = "", 0.0
    while (left_s := until_s - time.monotonic()) > 0:
        if not victim:
            victim = sorted(names)[len(restarts_s) % len(names)]
            killed_s = time.monotonic()
            os.kill(pids[victim], signal.SIGKILL)
        for ring in site.bell.hear(min(left_s, 0.1)):
            starts += ring.name == "loop"
            pids[ring.name] = ring.pid
            if ring.name == victim:
                restarts_s.append(ring.at_s - killed_s)
                victim = ""
                starts += sum(later.name == "loop" for later in site.bell.hear_for(min(left_s, 0.2)))
    spent_s = oracle.cpu_s(site.pid) - cpu_s
    wanted = _scheduled(seconds)
    require(abs(starts - wanted) <= 1, f"{wanted} starts in {seconds:g} s by the schedule: {starts}")
    require(spent_s <= cpu_share * seconds, f"CPU <= {cpu_share:.0%}: {spent_s / seconds:.1%}")
    require(
        quantile(restarts_s, 0.99) <= neighbour_s, f"neighbours p99 <= {neighbour_s}: {spread_ms(restarts_s)}"
    )
    took_s = _stop_in_delay(client, "loop")
    require(took_s <= stop_s, f"stop in the delay <= {stop_s * 1000:g} ms: {took_s * 1000:.0f} ms")
    return (
        f"{starts} starts of {wanted}, CPU {spent_s / seconds:.1%}, neighbours {spread_ms(restarts_s)}, "
        f"stop {took_s * 1000:.0f} ms"
    )


def _scheduled(seconds: float) -> int:
    """The default policy: at once, then 0.25 s doubling to 10 s."""
    count, at_s, delay_s = 2, 0.0, 0.25
    while (at_s := at_s + delay_s) < seconds:
        count, delay_s = count + 1, min(delay_s * 2, 10.0)
    return count


def _stop_in_delay(client: Client, name: str) -> float:
    def state() -> str:
        return str(client.ask("status", names=[name])["processes"][0]["state"])

    until(lambda: state() == "backoff", 15, f"{name} waits for its next try")
    began_s = time.monotonic()
    client.ask("stop", names=[name])
    return time.monotonic() - began_s


@experiment(
    "R11-ci",
    "`novad up -d` fails soon after a service has",
    short={"within_s": 3.0},
    full={"within_s": 1.0},
    controls={"a service that does not fail": {"within_s": 3.0, "script": "exec sleep 600"}},
)
def fail_in_ci(site: Site, within_s: float, script: str = "exit 1") -> str:
    """Five starts, then `failed`, then exit 1; counted from the fifth start."""
    command = f"""/bin/sh -c 'echo "$VICTIM $$" >> "$BELL"; {script}'"""
    site.write_config(f'[services.a]\ncommand = """{command}"""\nenv = {{ VICTIM = "a" }}\n')
    up = site.novad("up", "-d")
    rings = []
    while len(rings) < 5 and (heard := site.bell.hear(5)):
        rings += heard
    said, errors = up.communicate(timeout=20)
    took_s = time.monotonic() - rings[-1].at_s
    require(up.returncode == 1, f"exit 1: {up.returncode}: {said} {errors}")
    require(took_s <= within_s, f"within {within_s:g} s of the last start: {took_s:.2f} s")
    return f"exit 1 after {len(rings)} starts, {took_s:.2f} s after the last"


DIRTY = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD})
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR2, signal.SIGPIPE, 40):
    signal.signal(number, signal.SIG_IGN)
os.umask(0o027)
for fd in (50, 77):
    os.dup2(2, fd, inheritable=True)
os.execvp(sys.argv[1], sys.argv[1:])
"""


@experiment(
    "R27",
    "a child begins in a clean state under a dirty parent",
    short={"clients": 20},
    full={"clients": 100},
    controls={"a descriptor too many": {"clients": 1, "script": "exec 9</dev/null; while :; do sleep 600; done"}},
)
def begin_clean(site: Site, clients: int, script: str = "while :; do sleep 600; done") -> str:
    """Descriptors, stdin, ignored and blocked signals, session, umask, directory, limits, environment."""
    site.running.through = [sys.executable, "-c", DIRTY]
    # A shell, because a Python victim would ignore SIGPIPE by itself.
    spec = site.shell("a", script)
    client = site.up(spec)
    keep = [site.client() for _ in range(clients)]
    client.ask("restart")
    pid = site.leaders()["a"][0].pid
    opened = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    lock = [name for name, path in opened.items() if path.startswith(site.running.place.run_dir)]
    kinds = {name: re.sub(r":\[.*", "", path) for name, path in opened.items() if name not in lock}
    require(kinds == {"0": "/dev/null", "1": "pipe", "2": "pipe"}, f"descriptors 0, 1, 2: {opened}")
    require(len(lock) == 1, f"and its lock: {opened}")
    status = _settled(pid)
    for field, wanted in (("SigIgn", "0"), ("SigBlk", "0"), ("Umask", "27"), ("NoNewPrivs", "0")):
        found = re.search(rf"^{field}:\s*0*(\w+)$", status, re.M)
        require(found is not None and found[1] == wanted, f"{field} {wanted}: {found and found[0]}")
    require(os.getsid(pid) == pid == os.getpgid(pid), "a session and a group of its own")
    require(os.readlink(f"/proc/{pid}/cwd") == spec.cwd, f"its directory: {os.readlink(f'/proc/{pid}/cwd')}")
    require(_limits(pid) == _limits(os.getpid()), f"the limits of who started novad: {_limits(pid)}")
    _check_environment(site, pid)
    return f"descriptors 0-2 and the lock, no signal ignored or blocked, with {len(keep)} clients connected"


def _settled(pid: int) -> str:
    """The status of a shell that waits for its command: while it starts one it blocks every signal for a moment."""
    deadline_s = time.monotonic() + 5
    while True:
        status = Path(f"/proc/{pid}/status").read_text()
        blocked = re.search(r"^SigBlk:\s*(\w+)$", status, re.M)
        if (blocked and int(blocked[1], 16) == 0) or time.monotonic() > deadline_s:
            return status
        time.sleep(0.01)


def _limits(pid: int) -> dict[int, tuple[int, int]]:
    kinds = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
    return {kind: resource.prlimit(pid, kind) for kind in kinds}


def _check_environment(site: Site, pid: int) -> None:
    found = dict(item.split("=", 1) for item in Path(f"/proc/{pid}/environ").read_text().split("\0") if item)
    where = site.running.place
    wanted = {
        "PATH": os.environ["PATH"], "SITE": site.token, "BELL": f"{site.folder}/bell", "VICTIM": "a",
        "NOVAD_SERVICE": "a", "NOVAD_REPLICA": "1", "NOVAD_SOCKET": where.socket,
        "NOTIFY_SOCKET": f"{where.run_dir}/notify", "NOVAD_ID": f"{os.path.basename(where.run_dir)}/a/2",
        "PYTHONPATH": stacks.python_path(None),
    }  # fmt: skip
    require(found == wanted, f"environment differs: {set(found.items()) ^ set(wanted.items())}")
