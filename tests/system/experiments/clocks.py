"""Clocks that step and a novad that stands still: nothing is late because of it, and no age is wrong."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import time

from novad.core.spec import Health, Probe
from tests.novad.daemon.running import Client
from tests.system import oracle
from tests.system.board import Skip, experiment, require, until
from tests.system.oracle import Seen
from tests.system.site import Site

# Adds what a file says, in nanoseconds, to the clocks that a program asks for.
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
static volatile long long *steps;
static int (*real)(clockid_t, struct timespec *);
__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("CLOCK_STEPS"), O_RDONLY | O_CLOEXEC);
    real = dlsym(RTLD_NEXT, "clock_gettime");
    if (fd >= 0) steps = mmap(0, 16, PROT_READ, MAP_SHARED, fd, 0);
}
int clock_gettime(clockid_t which, struct timespec *now) {
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(which, now);
    if (!failed && steps && (which == CLOCK_REALTIME || which == CLOCK_MONOTONIC)) {
        long long ns = now->tv_sec * 1000000000LL + now->tv_nsec + steps[which == CLOCK_MONOTONIC];
        now->tv_sec = ns / 1000000000LL;
        now->tv_nsec = ns % 1000000000LL;
    }
    return failed;
}
"""
# Says that it is ready after a while and then pings, ten times in each watchdog period.
PINGER = """
import os, socket, sys, time
link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
time.sleep(0.2)
link.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    try:
        link.sendto(b"WATCHDOG=1", os.environ["NOTIFY_SOCKET"])
    except OSError:
        # Between two novads.
        pass
    time.sleep(float(sys.argv[1]) / 10)
"""
DAY_S = 86_400.0
YEARS_S = 3650 * DAY_S
WATCHDOG_S = 1.0


@experiment(
    "R22",
    "a wall clock that steps, a steady clock that jumps, and a novad that stands still",
    short={"steps_s": [DAY_S, -YEARS_S], "jump_s": 3600.0, "freeze_s": 2.5, "rest_s": 1.5},
    full={"steps_s": [DAY_S, -DAY_S, YEARS_S, -YEARS_S], "jump_s": 3600.0, "freeze_s": 30.0, "rest_s": 5.0},
    controls={
        "a service that stops pinging": {"steps_s": [], "jump_s": 0.0, "freeze_s": 0.0, "stall": True},
        "a child of another age": {"steps_s": [], "jump_s": 0.0, "freeze_s": 0.0, "wrong_by_s": 2.0},
    },
)
def tamper_with_time(
    site: Site,
    steps_s: list[float],
    jump_s: float,
    freeze_s: float,
    rest_s: float,
    stall: bool = False,
    wrong_by_s: float = 0.0,
) -> str:
    """A watchdog, a health probe and a service that is getting ready are what could time out."""
    steps = _shim(site)
    names = ["pinger", "probed", "sleeper"]
    client = site.up(
        site.spec("pinger", sys.executable, "-S", "-c", PINGER, str(WATCHDOG_S),
                  ready=Probe(notify=True), watchdog_s=WATCHDOG_S),
        site.sleeper("probed", health=Health(Probe(exec=("true",)), period_s=0.3, timeout_s=1.0, failures=2)),
        site.sleeper("sleeper"),
    )  # fmt: skip
    born = {name: seen for name, [seen] in site.leaders().items()}
    require(sorted(born) == names, f"all live: {sorted(born)}")
    if stall:
        os.kill(born["pinger"].pid, signal.SIGSTOP)
    done = []
    for step_s in [0.0, *steps_s]:
        _set(steps, wall_s=step_s)
        site.bell.hear_for(rest_s)
        _expect_nothing_happened(client, born, wrong_by_s, f"wall clock {step_s:+g} s")
        # What is written down of a child is read by the next novad, by another clock.
        site.crash()
        _set(steps, wall_s=-step_s)
        site.start()
        client = site.client()
        site.bell.hear_for(rest_s)
        _expect_nothing_happened(
            client, born, wrong_by_s, f"wall clock {step_s:+g} s before, {-step_s:+g} s after a crash"
        )
        done.append(f"{step_s:+g} s")
    _freeze(site, freeze_s)
    site.bell.hear_for(rest_s)
    _expect_nothing_happened(client, born, wrong_by_s, f"{freeze_s:g} s of standing still")
    _set(steps, steady_s=jump_s)
    site.bell.hear_for(rest_s)
    _expect_nothing_happened(client, born, jump_s, f"steady clock {jump_s:+g} s")
    return (
        f"wall clock {', '.join(done)}, each across a crash; steady clock {jump_s:+g} s; {freeze_s:g} s of standing "
        "still: 0 restarts, 0 timeouts, every age right to 1 s"
    )


def _shim(site: Site) -> mmap.mmap:
    """The daemon runs with clocks of its own from its start on."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Skip("no C compiler (cc) for the clocks that step")
    source, library, file = (site.folder / name for name in ("clocks.c", "clocks.so", "steps"))
    source.write_text(SHIM)
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"],
        capture_output=True,
        text=True,
    )
    if built.returncode:
        raise Skip(f"the clocks that step cannot be compiled: {built.stderr.strip()}")
    file.write_bytes(bytes(16))
    site.running.through = ["env", f"LD_PRELOAD={library}", f"CLOCK_STEPS={file}"]
    with file.open("r+b") as opened:
        return mmap.mmap(opened.fileno(), 16)


def _set(steps: mmap.mmap, wall_s: float = 0.0, steady_s: float = 0.0) -> None:
    struct.pack_into("qq", steps, 0, int(wall_s * 1e9), int(steady_s * 1e9))


def _freeze(site: Site, seconds: float) -> None:
    os.kill(site.pid, signal.SIGSTOP)
    until(lambda: getattr(oracle.look(site.pid), "state", "") == "T", 5, "novad stands still")
    site.bell.hear_for(seconds)
    os.kill(site.pid, signal.SIGCONT)


def _expect_nothing_happened(client: Client, born: dict[str, Seen], older_s: float, what: str) -> None:
    """The children are those of the beginning, well, and of the age that the kernel knows, plus `older_s`."""
    for row in client.ask("status")["processes"]:
        name = row["name"]
        is_same = row["restarts"] == 0 and row["pid"] == born[name].pid
        require(is_same, f"{what}: {name} is not restarted: {row['restarts']} times, pid {row['pid']}")
        require(row["state"] == "ready", f"{what}: {name} is ready: {row['state']} {row['note']}")
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - born[name].started / oracle.TICKS_PER_S + older_s
        wrong_s = row["uptime_s"] - age_s
        require(abs(wrong_s) <= 1.0, f"{what}: the uptime of {name} is right to 1 s: {wrong_s:+.2f} s")
