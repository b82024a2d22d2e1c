"""A pid that means somebody else now: novad signals and adopts only what it started."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from novad.core.spec import ProcessSpec
from tests.system import oracle
from tests.system.board import Skip, Violation, experiment, require, until
from tests.system.site import UNTIRING, Site


@experiment(
    "R24",
    "forced reuse of a pid, with novad dead, and with novad in the middle of a stop",
    short={"reuses": 8},
    full={"reuses": 50},
    controls={"a stranger that is signalled": {"harm": True}},
    isolated=True,
)
def reuse_pids(site: Site, reuses: int, harm: bool = False) -> str:
    """A stranger takes the pid, the session and the group of a dead child, within one tick where possible."""
    spec = site.sleeper("a", **UNTIRING)
    same_tick = 0
    for number in range(reuses):
        with_novad_dead = number % 2 == 0
        stranger, ticks = _once(site, spec, with_novad_dead, harm)
        same_tick += ticks == 0
        require(oracle.look(stranger.pid) is not None, f"the stranger lives after reuse {number}")
        require(stranger.poll() is None, f"the stranger was not signalled in reuse {number}")
        stranger.kill()
        stranger.wait()
        require(not site.live(), f"{len(site.live())} left after reuse {number}")
    return f"{reuses} reuses, {same_tick} with an equal start time, 0 wrong signals, 0 wrong adoptions"


def _once(
    site: Site, spec: ProcessSpec, with_novad_dead: bool, harm: bool
) -> tuple[subprocess.Popen[bytes], int]:
    site.up(spec)
    [ring] = site.bell.await_all({"a"}, 5).values()
    before = oracle.look(ring.pid)
    assert before is not None
    site.crash()
    if not with_novad_dead:
        # The child is adopted, so its pid is free as soon as its new parent, that is us, has reaped it.
        site.start()
        until(lambda: site.client().ask("status")["processes"][0]["note"] == "adopted", 5, "it is adopted")
        os.kill(site.pid, signal.SIGSTOP)
        until(lambda: getattr(oracle.look(site.pid), "state", "") == "T", 5, "novad stands still")
    os.kill(ring.pid, signal.SIGKILL)
    os.waitpid(ring.pid, 0)
    stranger = _take(ring.pid)
    seen = oracle.look(stranger.pid)
    assert seen is not None
    if with_novad_dead:
        site.start()
        client = site.client()
        rows = client.ask("status")["processes"]
        require(all(row["pid"] != stranger.pid for row in rows), "the stranger is not adopted")
        client.ask("wait", **{"for": "ready"})
        number = client.send("down")
    else:
        client = site.client()
        number = client.send("down")
        os.kill(site.pid, signal.SIGCONT)
    if harm:
        stranger.kill()
    client.answer(number)
    assert site.running.process is not None
    site.running.process.wait(10)
    site.bell.hear(0)
    return stranger, seen.started - before.started


def _take(pid: int) -> subprocess.Popen[bytes]:
    """A process of nobody's with this pid, leading its own session as the dead child did."""
    path = Path("/proc/sys/kernel/ns_last_pid")
    for _ in range(200):
        try:
            path.write_text(str(pid - 1))
        except OSError as error:
            raise Skip(f"ns_last_pid cannot be set: {error.strerror}") from None
        stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
        if stranger.pid == pid:
            return stranger
        stranger.kill()
        stranger.wait()
    raise Violation(f"pid {pid} could not be taken")
