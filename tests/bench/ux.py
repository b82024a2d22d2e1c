"""How long a person waits: whole commands, beside those of supervisor and circus, in one run.

    python tests/bench/ux.py [--runs 21] [row ...]

Medians of whole commands as a shell starts them, with a daemon that has 20 services, after two runs to warm the disk's
cache. `first byte` is what a terminal gets first, on a pty; the goals are those that the project has set itself.
"""

from __future__ import annotations

import argparse
import os
import platform
import pty
import resource
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.peers import Circus, Peer, Supervisor  # noqa: E402

NOVAD = str(Path(sys.executable).parent / "novad")
SERVICES = 20
LOG_BYTES = 100_000_000
LINE = "line %010.0f of a log that is long enough to be worth a search, and then some more of it"


class Figures(NamedTuple):
    """Medians in seconds: what the clock says, and the processor time of the command, which other work leaves alone."""

    wall_s: float
    cpu_s: float

    def __str__(self) -> str:
        return f"{self.wall_s * 1000:.0f} | {self.cpu_s * 1000:.0f}"


def medians(measure: Callable[[], float], runs: int) -> Figures:
    """Of `runs` calls of `measure`, which returns the seconds of its own."""
    for _ in range(2):
        measure()
    walls, costs = [], []
    for _ in range(runs):
        before_s = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        walls.append(measure())
        costs.append(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before_s)
    return Figures(statistics.median(walls), statistics.median(costs))


Row = Callable[["Desk"], Figures]


class Desk:
    """A project with a running cluster, and a person who types."""

    def __init__(self, folder: Path, runs: int) -> None:
        self.folder, self.runs = folder, runs
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("NOVAD_")}
        self.environ |= {"XDG_RUNTIME_DIR": str(folder / "run"), "TERM": "xterm-256color"}
        # Nobody is here to answer where the cursor is.
        self.environ["PROMPT_TOOLKIT_NO_CPR"] = "1"
        (folder / "run").mkdir(mode=0o700)
        count = LOG_BYTES // (len(LINE) + 30)
        services = "".join(f'[services.s{number}]\ncommand = "sleep 1000"\n' for number in range(SERVICES))
        (folder / "nova.toml").write_text(
            f"{services}[services.loud]\ncommand = ['seq', '-f', '{LINE}', '{count}']\noneshot = true\n"
            "autostart = false\nlogs = { max = '1GiB' }\n"
        )

    def novad(self, *words: str, environ: dict[str, str] | None = None) -> float:
        """Seconds that the whole command takes. Raises `CalledProcessError`."""
        began_s = time.perf_counter()
        subprocess.run(
            [NOVAD, *words], cwd=self.folder, env=self.environ | (environ or {}), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        return time.perf_counter() - began_s

    def median(self, measure: Callable[[], float]) -> Figures:
        return medians(measure, self.runs)

    def first_bytes(self, *words: str, awaited: bytes = b"") -> float:
        """Seconds until a terminal gets the first byte, or `awaited`; the command is ended then."""
        master, slave = pty.openpty()
        began_s = time.perf_counter()
        process = subprocess.Popen(
            [NOVAD, *words], cwd=self.folder, env=self.environ, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        seen = b""
        try:
            while not seen or awaited not in seen:
                if not select.select([master], [], [], 20.0)[0]:
                    raise TimeoutError(f"{words}: {seen!r}")
                seen += os.read(master, 65536)
            return time.perf_counter() - began_s
        finally:
            process.terminate()
            process.wait()
            os.close(master)


def status(desk: Desk) -> Figures:
    return desk.median(lambda: desk.novad("status"))


def logs(desk: Desk) -> Figures:
    return desk.median(lambda: desk.novad("logs", "-n", "20"))


def helped(desk: Desk) -> Figures:
    return desk.median(lambda: desk.novad("--help"))


def completion(desk: Desk) -> Figures:
    asked = {"_NOVAD_COMPLETE": "bash_complete", "COMP_WORDS": "novad restart s", "COMP_CWORD": "2"}
    return desk.median(lambda: desk.novad(environ=asked))


def prompt(desk: Desk) -> Figures:
    return desk.median(lambda: desk.first_bytes("shell", awaited=f"{desk.folder.name}>".encode()))


def up(desk: Desk) -> Figures:
    """Of a cluster that is down, as each morning."""

    def once() -> float:
        desk.novad("down")
        return desk.first_bytes("up", "-d")

    found = desk.median(once)
    desk.novad("up", "-d")
    return found


def search(desk: Desk) -> Figures:
    desk.novad("start", "loud")
    desk.novad("wait", "loud", "--for", "done", "--timeout", "60")
    size = (desk.folder / ".novad/logs/loud.log").stat().st_size
    assert size >= 0.9 * LOG_BYTES, size
    return desk.median(lambda: desk.novad("logs", "-g", "line 0000500000", "loud"))


# What -> how it is measured, and the goal in milliseconds.
ROWS: dict[str, tuple[Row, float]] = {
    "status": (status, 100),
    "logs -n 20": (logs, 100),
    "--help": (helped, 100),
    "completion": (completion, 80),
    "shell, first prompt": (prompt, 250),
    "up, first byte": (up, 100),
    "logs -g, 100 MB": (search, 1000),
}


@contextmanager
def peer(kind: type[Peer], folder: Path) -> Iterator[Peer]:
    folder.mkdir()
    found = kind(folder)
    found.configure({f"s{number}": ["sleep", "1000"] for number in range(SERVICES)})
    found.start()
    try:
        yield found
    finally:
        found.stop()
        assert found.process is not None
        try:
            found.process.wait(20)
        finally:
            found.end()


def peer_status(kind: type[Peer], folder: Path, runs: int) -> Figures | None:
    """The same table from a peer; None where it does not answer."""
    with peer(kind, folder) as found:
        words = found.status_command()
        assert words is not None

        def once() -> float:
            began_s = time.perf_counter()
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
            if done.stdout.lower().count("running") + done.stdout.count("active") < SERVICES:
                raise RuntimeError(f"{words}: {done.stdout}{done.stderr}")
            return time.perf_counter() - began_s

        until_s = time.monotonic() + 20.0
        while True:
            try:
                once()
                break
            except RuntimeError:
                if time.monotonic() > until_s:
                    return None
                time.sleep(0.2)
        return medians(once, runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}; all without one")
    parser.add_argument("--runs", type=int, default=21)
    parser.add_argument("--no-peers", action="store_true")
    args = parser.parse_args()
    top = Path(tempfile.mkdtemp(prefix="nv", dir="/tmp"))
    (top / "desk").mkdir()
    print(f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}, {SERVICES} services, medians of {args.runs}\n")  # fmt: skip
    print("| whole command | ms | processor ms | goal ms |\n|---|---|---|---|")
    desk = Desk(top / "desk", args.runs)
    try:
        desk.novad("up", "-d")
        for name in args.rows or ROWS:
            row, goal = ROWS[name]
            print(f"| `novad {name}` | {row(desk)} | {goal:.0f} |", flush=True)
        for kind in () if args.no_peers else (Supervisor, Circus):
            found = peer_status(kind, top / kind.name, args.runs) if kind.is_here() else None
            print(f"| `{kind.name}ctl status` | {found or '- | -'} | |", flush=True)
    finally:
        desk.novad("down", "--kill")
        shutil.rmtree(top, ignore_errors=True)


if __name__ == "__main__":
    main()
