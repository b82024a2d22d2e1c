"""What supervision costs: novad, its peers and the raw loops, in one run.

    python tests/bench/supervision.py [--peer NAME ...] [row ...]

Rows: crowd (start, memory, idle, status, restart and stop of 100 and 500 children), log (one child and twenty),
storm. The children say
themselves when they run (tests/bench/raw/child.c, CLOCK_MONOTONIC); memory, CPU and wake-ups come from /proc.
Compare ratios: absolute values belong to the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.peers import PEERS, Peer  # noqa: E402
from tests.system import oracle  # noqa: E402
from tests.system.site import Bell  # noqa: E402

Figures = dict[str, float | None]
# How long a peer is waited for before its figure is left out.
PATIENCE_S = 40.0
# What a supervisor does in its first ten seconds (novad looks once whether it was given a cluster) is no idling.
SETTLED_S = 11.0


class Stage:
    """A directory, a bell that children ring, and one peer."""

    def __init__(self, kind: type[Peer], folder: Path, child: Path) -> None:
        self.bell = Bell(folder / "rings")
        self._fifo = folder / "rings"
        self._child = child
        self.peer = kind(folder)

    def commands(self, count: int, deed: str) -> dict[str, list[str]]:
        names = [f"c{number}" for number in range(count)]
        return {name: [str(self._child), str(self._fifo), name, deed] for name in names}

    def rung(self, count: int) -> dict[str, tuple[int, float]]:
        """pid and time in seconds of the first `count` different children that ring; fewer when patience ends."""
        found: dict[str, tuple[int, float]] = {}
        until_s = time.monotonic() + PATIENCE_S
        while len(found) < count and (left_s := until_s - time.monotonic()) > 0:
            for ring in self.bell.hear(left_s):
                name, _, pid = ring.name.rpartition(" ")
                found[name] = int(pid), ring.pid / 1e9
        return found

    def close(self) -> None:
        self.peer.end()
        self.bell.close()


def crowd(stage: Stage, count: int) -> Figures:
    """`count` children that sleep."""
    peer, figures = stage.peer, {}
    peer.configure(stage.commands(count, "sleep"))
    began_s = time.monotonic()
    peer.start()
    rings = stage.rung(count)
    if len(rings) < count:
        return {f"start {count} s": None}
    figures[f"start {count} s"] = max(at_s for _, at_s in rings.values()) - began_s
    stage.bell.hear_for(SETTLED_S)
    pids = peer.own_pids()
    figures[f"PSS {count} MB"] = sum(map(oracle.pss_bytes, pids)) / 1e6
    figures |= _idle(stage, pids, count)
    figures[f"status {count} ms"] = _status(peer)
    figures[f"status over a socket {count} ms"] = _status_by_connection(peer)
    if peer.restarts and count <= 100:
        figures["restart p50 ms"], figures["restart max ms"] = _restart(stage, rings)
    figures[f"stop {count} s"] = _stop(stage, [pid for pid, _ in rings.values()])
    return figures


def _idle(stage: Stage, pids: list[int], count: int, seconds: float = 30.0) -> Figures:
    woken, cpu_s = sum(map(oracle.wakeups, pids)), _cpu_s(pids)
    stage.bell.hear_for(seconds)
    return {
        f"wake-ups {count} /s": (sum(map(oracle.wakeups, pids)) - woken) / seconds,
        f"idle CPU {count} ms/s": 1000 * (_cpu_s(pids) - cpu_s) / seconds,
    }


def _cpu_s(pids: list[int]) -> float:
    """Of those that still live: a fork that has not executed its child yet may be among them."""
    total_s = 0.0
    for pid in pids:
        try:
            total_s += oracle.cpu_s(pid)
        except IndexError:
            continue
    return total_s


def _status(peer: Peer) -> float | None:
    command = peer.status_command()
    if command is None:
        return None
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(peer.folder / "run")}
    took_s = []
    for _ in range(5):
        began_s = time.monotonic()
        done = subprocess.run(command, cwd=peer.folder, env=env, capture_output=True, timeout=PATIENCE_S)
        took_s.append(time.monotonic() - began_s)
        assert done.returncode == 0, f"{peer.name} status: {done.stdout!r} {done.stderr!r}"
    return 1000 * statistics.median(took_s)


def _status_by_connection(peer: Peer) -> float | None:
    ask = peer.connection()
    if ask is None:
        return None
    took_s = []
    for _ in range(50):
        began_s = time.monotonic()
        ask()
        took_s.append(time.monotonic() - began_s)
    return 1000 * statistics.median(took_s)


@contextlib.contextmanager
def _asking(peer: Peer, every_s: float) -> Iterator[list[float]]:
    """Asks over an open connection meanwhile; the list of seconds that each answer took grows."""
    ask, took_s, ended = peer.connection(), [], threading.Event()

    def work() -> None:
        while ask is not None and not ended.wait(every_s):
            began_s = time.monotonic()
            ask()
            took_s.append(time.monotonic() - began_s)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield took_s
    finally:
        ended.set()
        thread.join()


def _p99_ms(took_s: list[float]) -> float | None:
    return 1000 * sorted(took_s)[int(len(took_s) * 0.99)] if took_s else None


def _restart(stage: Stage, rings: dict[str, tuple[int, float]], samples: int = 15) -> tuple[float, float]:
    """From SIGKILL to the successor's first act; every victim had been up for more than two seconds."""
    took_s: list[float] = []
    for name in list(rings)[:samples]:
        began_s = time.monotonic()
        os.kill(rings[name][0], signal.SIGKILL)
        rings |= (found := stage.rung(1))
        if name not in found:
            break
        took_s.append(found[name][1] - began_s)
        if sum(took_s) > 10:
            break
    return 1000 * statistics.median(took_s), 1000 * max(took_s)


def _stop(stage: Stage, pids: list[int]) -> float | None:
    left = [os.pidfd_open(pid) for pid in pids if oracle.look(pid)]
    began_s = time.monotonic()
    stage.peer.stop()
    gone = _await_deaths(left, PATIENCE_S)
    took_s = time.monotonic() - began_s
    for fd in left:
        os.close(fd)
    return took_s if gone else None


def _await_deaths(pidfds: list[int], seconds: float) -> bool:
    poll = select.poll()
    for fd in pidfds:
        poll.register(fd, select.POLLIN)
    alive, until_s = set(pidfds), time.monotonic() + seconds
    while alive and (left_s := until_s - time.monotonic()) > 0:
        for fd, _ in poll.poll(left_s * 1000):
            poll.unregister(fd)
            alive.discard(fd)
    return not alive


def _warm(folder: Path, megabytes: int = 1000) -> None:
    """Have memory for the page cache: on a virtual machine the first touch of a page costs more than all the rest."""
    block = bytes(1_000_000)
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(megabytes):
            file.write(block)


def log(stage: Stage, megabytes: int = 200) -> Figures:
    """One child writes lines of 100 bytes: until its last byte is written, and the CPU of all its readers meanwhile."""
    peer = stage.peer
    _warm(peer.folder)
    peer.configure(stage.commands(1, str(megabytes * 1_000_000)))
    peer.start()
    began = stage.rung(1)
    cpu_s = _cpu_s(peer.own_pids())
    ended = stage.rung(1)
    if not ended:
        return {"log MB/s": None}
    seconds = ended["c0"][1] - began["c0"][1]
    cpu_s = _cpu_s(peer.own_pids()) - cpu_s
    return {"log MB/s": megabytes / seconds, "log CPU ms/MB": 1000 * cpu_s / megabytes}


def logs(stage: Stage, count: int = 20, megabytes: int = 20) -> Figures:
    """Twenty children write at once; `status` is asked meanwhile."""
    peer, total = stage.peer, count * megabytes
    _warm(peer.folder)
    peer.configure(stage.commands(count, str(megabytes * 1_000_000)))
    peer.start()
    began = stage.rung(1)
    cpu_s = _cpu_s(peer.own_pids())
    heard: dict[str, int] = dict.fromkeys(began, 1)
    first_s = last_s = next(iter(began.values()))[1]
    until_s = time.monotonic() + PATIENCE_S
    with _asking(peer, 0.02) as took_s:
        while sum(heard.values()) < 2 * count and time.monotonic() < until_s:
            for ring in stage.bell.hear(0.1):
                name, _, _ = ring.name.rpartition(" ")
                heard[name] = heard.get(name, 0) + 1
                first_s, last_s = min(first_s, ring.pid / 1e9), max(last_s, ring.pid / 1e9)
    if sum(heard.values()) < 2 * count:
        return {f"{count} logs MB/s": None}
    cpu_s = _cpu_s(peer.own_pids()) - cpu_s
    return {
        f"{count} logs MB/s": total / (last_s - first_s),
        f"{count} logs CPU ms/MB": 1000 * cpu_s / total,
        f"{count} logs, status p99 ms": _p99_ms(took_s),
    }


def storm(stage: Stage, seconds: float = 20.0) -> Figures:
    """A hundred children that exit with 1 at once: CPU of the supervisor from the first start on, for each start."""
    peer = stage.peer
    peer.configure(stage.commands(100, "exit"))
    peer.start()
    stage.rung(1)
    cpu_s = _cpu_s(peer.own_pids())
    starts = len(stage.bell.hear_for(seconds))
    cpu_s = _cpu_s(peer.own_pids()) - cpu_s
    return {"storm starts": float(starts), "storm CPU ms/start": 1000 * cpu_s / max(starts, 1)}


def asked_storm(stage: Stage, seconds: float = 20.0) -> Figures:
    """The same storm once more, with `status` asked twenty times a second."""
    stage.peer.configure(stage.commands(100, "exit"))
    stage.peer.start()
    stage.rung(1)
    with _asking(stage.peer, 0.05) as took_s:
        stage.bell.hear_for(seconds)
    return {"storm, status p99 ms": _p99_ms(took_s)}


ROWS: dict[str, list[Callable[[Stage], Figures]]] = {
    "crowd": [lambda stage: crowd(stage, 100), lambda stage: crowd(stage, 500)],
    "log": [log, logs],
    "storm": [storm, asked_storm],
}


def measure(kind: type[Peer], rows: list[str]) -> Figures:
    """The figures of one peer, each row in a directory of its own."""
    figures: Figures = {}
    for row in rows:
        if row == "storm" and not kind.restarts:
            continue
        for act in ROWS[row]:
            with tempfile.TemporaryDirectory(prefix="nb-", ignore_cleanup_errors=True) as name:
                child = Path(name) / "bench-child"
                source = Path(__file__).parent / "raw" / "child.c"
                subprocess.run(["cc", "-O2", "-o", child, source], check=True)
                stage = Stage(kind, Path(name), child)
                try:
                    figures |= act(stage)
                except Exception as error:
                    print(f"{kind.name}: {row}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                finally:
                    stage.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}; all without one")
    parser.add_argument("--peer", action="append", help="only this one; may be repeated")
    args = parser.parse_args()
    chosen = [kind for kind in PEERS if not args.peer or kind.name in args.peer]
    table: dict[str, Figures] = {}
    for kind in chosen:
        if not kind.is_here():
            print(f"{kind.name}: not installed, left out", file=sys.stderr)
            continue
        table[kind.name] = measure(kind, args.rows or list(ROWS))
        print(f"{kind.name}: {table[kind.name]}", file=sys.stderr, flush=True)
    print(f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores\n")
    print_table(table)


def print_table(table: dict[str, Figures]) -> None:
    """Markdown: a row a figure, a column a peer."""
    figures = list(dict.fromkeys(key for column in table.values() for key in column))
    print("| | " + " | ".join(table) + " |")
    print("|---" * (len(table) + 1) + "|")
    for key in figures:
        print(f"| {key} | " + " | ".join(_shown(column.get(key)) for column in table.values()) + " |")


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
