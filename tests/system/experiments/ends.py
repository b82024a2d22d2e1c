"""kill -9 of everything that holds an owned cluster: `novad run`, its command, its daemon, pytest, the terminal."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.novad.testing.running import Site as Project
from tests.novad.testing.running import pytest_argv
from tests.system import oracle
from tests.system.board import Violation, experiment, require
from tests.system.site import Site

LEFT_S = 2.0
UP_S = 60.0
# What a run of several steps may take until it notices: the next death comes in the middle of any of them.
PAUSE_S = 0.6

# Both ignore TERM, and so does what web leaves behind in another session.
CLUSTER = """
[defaults]
ready_after = "50ms"
stop = { timeout = "500ms" }
[services.web]
command = ["sh", "-c", "trap '' TERM; setsid sh -c 'trap \\"\\" TERM; sleep 1000' & sleep 1000"]
[services.db]
command = ["sh", "-c", "trap '' TERM; sleep 1000"]
"""
HANG = """
import subprocess

def test_hang(nova):
    subprocess.Popen(["sleep", "1000"])
    with open("up", "w") as pipe:
        pipe.write("x")
    subprocess.run(["sleep", "1000"])
"""
# The terminal: a process that holds the other end of the pseudo-terminal of what it is told to run.
TERMINAL = "import pty, sys; pty.spawn(sys.argv[1:])"
SHELL = ["sh", "-c", "setsid sleep 1000 & echo x > up; sleep 1000"]


def programs() -> dict[str, tuple[list[str], tuple[str, ...]]]:
    """Kind -> what is typed at the terminal, and who can be killed then; `top` is what was typed."""
    run = [sys.executable, "-m", "novad", "run", "--"]
    tests = pytest_argv("-q", "-s")
    return {
        "run a shell": ([*run, *SHELL], ("top", "command", "daemon", "terminal")),
        "run pytest": ([*run, *tests], ("top", "command", "daemon", "terminal")),
        "pytest": (tests, ("top", "daemon", "terminal")),
    }


def combinations() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every kind with every victim, pair and triple of victims in every order."""
    for kind, (_, victims) in programs().items():
        for length in (1, 2, 3):
            yield from ((kind, order) for order in itertools.permutations(victims, length))


@experiment(
    "C02",
    "kill -9 of pytest, `novad run`, its command, the daemon and the terminal, in every order",
    short={"every": 12, "pauses": [True]},
    full={"every": 1, "pauses": [False, True]},
    controls={"a guardian that is killed first": {"every": 50, "pauses": [False], "before": ["guardian"]}},
)
def kill_in_every_order(site: Site, every: int, pauses: list[bool], before: list[str] | None = None) -> str:
    """Two seconds after the last death nothing is alive of the cluster, of the command and of what it started."""
    slowest_s, count = 0.0, 0
    chance = random.Random(7)
    # The control needs an order in which daemon and owner are both dead.
    chosen = [("run a shell", ("top", "daemon"))] if before else list(combinations())[::every]
    for with_pause, (kind, order) in itertools.product(pauses, chosen):
        pause_s = [chance.uniform(0.0, PAUSE_S) if with_pause else 0.0 for _ in order]
        folder = Path(tempfile.mkdtemp(dir=site.folder))
        runtime = Path(tempfile.mkdtemp(prefix="nv", dir="/tmp"))
        project = Project(folder, runtime)
        try:
            slowest_s = max(slowest_s, _once(site, project, kind, [*(before or ()), *order], pause_s))
        finally:
            project.end()
            shutil.rmtree(runtime)
        count += 1
    return f"{count} combinations: 0 alive after {LEFT_S:g} s, the slowest gone after {slowest_s:.2f} s"


def _once(site: Site, project: Project, kind: str, order: list[str], pauses_s: list[float]) -> float:
    project.write(CLUSTER, fast=False)
    project.write(HANG, "test_hang.py")
    os.mkfifo(project.folder / "up")
    up = os.open(project.folder / "up", os.O_RDWR | os.O_NONBLOCK)
    typed, _ = programs()[kind]
    terminal = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, *typed], cwd=project.folder, env=project.environ, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        require(bool(select.select([up], [], [], UP_S)[0]), f"{kind}: it comes up")
        victims = _victims(project, terminal)
        for name, pause_s in itertools.zip_longest(order, pauses_s, fillvalue=0.0):
            # One death may have brought about the next by now.
            with contextlib.suppress(ProcessLookupError):
                os.kill(victims[str(name)], signal.SIGKILL)
            if float(pause_s):
                site.bell.hear_for(float(pause_s))
        began_s = time.monotonic()
        if kind == "pytest" and set(order) == {"daemon"}:
            # The test goes on and finds that its cluster is gone.
            left = _left_of_cluster(project, victims["guardian"])
            require(oracle.look(victims["top"]) is not None, f"{kind}, killed daemon: pytest lives")
        else:
            left = [seen for seen in project.left_after(LEFT_S) if seen.pid != terminal.pid]
        require(not left, f"{kind}, killed {', '.join(order)}: alive {[seen.command for seen in left]}")
        return time.monotonic() - began_s
    finally:
        os.close(up)
        terminal.kill()
        terminal.communicate()


def _left_of_cluster(project: Project, guardian: int) -> list[oracle.Seen]:
    """What still lives of the cluster, known by its mark, at the latest after `LEFT_S`."""
    seen = oracle.look(guardian)
    assert seen is not None
    mark = seen.command.split()[-1]
    until_s = time.monotonic() + LEFT_S
    while left := [found for found in oracle.processes(mark) if found.session != seen.session]:
        if time.monotonic() > until_s:
            break
        select.select([], [], [], 0.005)
    return left


def _victims(project: Project, terminal: subprocess.Popen[bytes]) -> dict[str, int]:
    """The pids by role, found in /proc."""
    live = {seen.pid: seen for seen in project.live()}
    top = _child(live, terminal.pid)
    guardian = next(
        seen.pid for seen in oracle.processes(str(project.runtime)) if "novad-guardian" in seen.command
    )
    found = {"terminal": terminal.pid, "top": top, "daemon": project.daemons()[0], "guardian": guardian}
    if " novad run " in live[top].command:
        found["command"] = _child(live, top)
    return found


def _child(live: dict[int, oracle.Seen], parent: int) -> int:
    """The one child that shares its session with its parent, or that the terminal gave one."""
    found = [seen.pid for seen in live.values() if seen.parent == parent and "novad.daemon" not in seen.command]
    if len(found) != 1:
        raise Violation(f"one child of {parent}, not {found}")
    return found[0]
