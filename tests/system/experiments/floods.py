"""Output: more than anybody reads, and bytes that are no lines."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from novad.core.spec import Log
from tests.system import oracle
from tests.system.board import experiment, quantile, require, spread_ms, until
from tests.system.site import UNTIRING, Site

STAMP_BYTES = len("2026-11-23T17:01:02.123456Z o ")
SPLIT_MARK = b" [line split]"


@experiment(
    "R15",
    "four children that write at full speed",
    short={"seconds": 2.0, "status_s": 1.0, "neighbour_s": 1.0, "max_bytes": 2_000_000},
    full={"seconds": 30.0, "status_s": 0.2, "neighbour_s": 0.1, "max_bytes": 10_485_760},
    controls={"a line that is missing": {"tamper": True}},
)
def flood(
    site: Site, seconds: float, status_s: float, neighbour_s: float, max_bytes: int, tamper: bool = False
) -> str:
    """`status` and a neighbour's restart stay quick, memory and disk bounded, no line is lost."""
    writers = [f"w{number}" for number in range(4)]
    folder = Path(site.running.place.log_dir)
    logs = {name: Log(f"{folder}/{name}.log", max_bytes, 3) for name in writers}
    client = site.up(
        site.sleeper("quiet", **UNTIRING),
        *(site.spec(name, "seq", "1000000000", log=logs[name], autostart=False) for name in writers),
    )
    pid = site.bell.await_all({"quiet"}, 5)["quiet"].pid
    client.ask("start", names=writers)
    client.ask("status")
    rss, cpu_s = oracle.rss_bytes(site.pid), oracle.cpu_s(site.pid)
    answers_s: list[float] = []
    restarts_s: list[float] = []
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        began_s = time.monotonic()
        client.ask("status")
        answers_s.append(time.monotonic() - began_s)
        began_s = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        ring = site.bell.await_all({"quiet"}, 10)
        require("quiet" in ring, "the neighbour is restarted")
        pid = ring["quiet"].pid
        restarts_s.append(ring["quiet"].at_s - began_s)
        site.bell.hear_for(0.05)
    grown = oracle.rss_bytes(site.pid) - rss
    share = (oracle.cpu_s(site.pid) - cpu_s) / seconds
    client.ask("stop")
    while client.ask("status")["daemon"]["disk"]["waiting"]:
        time.sleep(0.01)
    disk = sum(path.stat().st_size for path in folder.glob("w*.log*"))
    if tamper:
        # The newest may have begun with the last remark.
        path = max(folder.glob("w0.log*"), key=lambda path: path.stat().st_size)
        path.write_bytes(path.read_bytes().replace(b"0\n", b"\n", 1))
    for name in writers:
        _check_numbers(folder, name)
    require(quantile(answers_s, 0.99) <= status_s, f"status p99 <= {status_s} s: {spread_ms(answers_s)}")
    require(quantile(restarts_s, 0.99) <= neighbour_s, f"restart p99 <= {neighbour_s} s: {spread_ms(restarts_s)}")
    require(grown <= 50e6, f"memory +50 MB at most: {grown / 1e6:.0f} MB")
    require(disk <= 4 * 3 * (max_bytes + 300_000), f"disk <= its cap: {disk / 1e6:.0f} MB")
    return (
        f"status {spread_ms(answers_s)}, restart {spread_ms(restarts_s)}, RSS {grown / 1e6:+.1f} MB, "
        f"disk {disk / 1e6:.0f} MB, CPU {share:.0%}, 0 lines lost"
    )


def _check_numbers(folder: Path, name: str) -> None:
    """What is kept of `seq` is one run of numbers without a hole."""
    files = sorted(folder.glob(f"{name}.log*"), key=lambda path: path.name, reverse=True)
    text = b"".join(path.read_bytes() for path in files)
    numbers = [
        int(line[STAMP_BYTES:] or b"0") for line in text.splitlines() if line[STAMP_BYTES - 2 :][:1] == b"o"
    ]
    # Its end came in the middle of a write: the last number may be cut.
    whole = numbers[:-1]
    require(len(whole) > 1000, f"{name} wrote: {len(whole)} lines")
    require(whole == list(range(whole[0], whole[0] + len(whole))), f"{name}: its numbers have no hole")


# Writes a torture in pieces of odd sizes; says the hash of all that it wrote on its way out.
TORTURER = """
import hashlib, os, sys
kind, size, result = sys.argv[1], int(sys.argv[2]), sys.argv[3]
pieces = {
    "endless": b"0123456789abcdef" * 4096,
    "empty": b"\\n" * 65536,
    "bytes": bytes(range(256)) * 64 + b"\\n",
    "returns": b"10%\\r20%\\r\\n" * 500,
    "utf-8": ("\\u20ac\\U0001f600" * 100 + "\\n").encode(),
}
sha, left, piece, at = hashlib.sha256(), size, pieces[kind], 0
step = {"utf-8": 7, "bytes": 1001}.get(kind, 65521)
while left > 0:
    data = (piece[at:] + piece)[:min(step, left, len(piece))]
    at = (at + len(data)) % len(piece)
    os.write(1, data)
    sha.update(data)
    left -= len(data)
os.write(1, b"\\n")
sha.update(b"\\n")
with open(result, "w") as file:
    file.write(sha.hexdigest())
"""


@experiment(
    "R16",
    "lines without an end, without a letter, without a meaning",
    short={"endless_bytes": 20_000_000, "empty_lines": 200_000, "odd_bytes": 200_000},
    full={"endless_bytes": 1_000_000_000, "empty_lines": 1_000_000, "odd_bytes": 2_000_000},
    controls={"a byte that is different": {"endless_bytes": 100_000, "tamper": True}},
)
def torture(site: Site, endless_bytes: int, empty_lines: int, odd_bytes: int, tamper: bool = False) -> str:
    """The log holds exactly what was written; the commands that read it work."""
    sizes = {"endless": endless_bytes, "empty": empty_lines, "bytes": odd_bytes, "returns": odd_bytes,
             "utf-8": odd_bytes // 10}  # fmt: skip
    folder = Path(site.running.place.log_dir)
    site.write_config("")
    specs = [
        site.spec(
            kind, sys.executable, "-S", "-c", TORTURER, kind, str(size), f"{site.folder}/{kind}.sha",
            oneshot=True, restart="no", log=Log(f"{folder}/{kind}.log", 1 << 40, 2),
        )
        for kind, size in sizes.items()
    ]  # fmt: skip
    site.start()
    client = site.client()
    client.ask("up", cluster=site.cluster(*specs), start=False)
    rss = oracle.rss_bytes(site.pid)
    began_s = time.monotonic()
    for spec in specs:
        client.ask("start", names=[spec.name])
    done = client.ask("wait", **{"for": "done"})
    require(done == {"met": True}, f"every victim could write it all: {done}")
    seconds = time.monotonic() - began_s
    grown = oracle.rss_bytes(site.pid) - rss
    if tamper:
        path = folder / "endless.log"
        path.write_bytes(path.read_bytes().replace(b"0123", b"0124", 1))
    for kind in sizes:
        wanted = (site.folder / f"{kind}.sha").read_text()
        require(sha_of_lines(folder / f"{kind}.log") == wanted, f"{kind}: the log is what was written")
    require(grown <= 20e6, f"memory +20 MB at most: {grown / 1e6:.0f} MB")
    for words in (
        ("logs", "-n", "20"),
        ("logs", "-n", "20", "bytes"),
        ("--json", "logs", "-n", "5"),
        ("status",),
    ):
        require(site.ask(*words) != "", f"novad {' '.join(words)} prints something")
    total = sum(sizes.values()) / 1e6
    return f"{total:.0f} MB in {seconds:.1f} s, 5 kinds equal by sha256, RSS {grown / 1e6:+.1f} MB"


def sha_of_lines(path: Path) -> str:
    """Of what the child wrote: stamps taken off, split lines joined, novad's own remarks left out."""
    sha = hashlib.sha256()
    stamped = re.compile(rb"\A[0-9T:.-]{26}Z [on] ")
    with path.open("rb") as file:
        for line in file:
            require(stamped.match(line) is not None, f"every line is stamped: {line[:60]!r}")
            if line[STAMP_BYTES - 2 : STAMP_BYTES - 1] == b"o":
                text = line[STAMP_BYTES:-1]
                sha.update(text.removesuffix(SPLIT_MARK) if text.endswith(SPLIT_MARK) else text + b"\n")
    return sha.hexdigest()


# Writes so many bytes in lines, and leaves the seconds that it took in a file.
MEASURED = """
import os, sys, time
left, result = int(sys.argv[1]), sys.argv[2]
line = b"x" * 99 + b"\\n"
piece = line * 640
began = time.monotonic()
while left > 0:
    left -= os.write(1, piece)
with open(result, "w") as file:
    file.write(str(time.monotonic() - began))
"""


@experiment(
    "R17",
    "followers that are stopped while a child writes",
    short={"clients": 4, "rounds": 3, "size": 20_000_000, "stopped_s": 0.0, "share": 0.3, "rss_mb": 20},
    full={"clients": 20, "rounds": 15, "size": 100_000_000, "stopped_s": 20.0, "share": 0.95, "rss_mb": 20},
    controls={
        "followers that never go on": {"goes_on": False, "told_s": 1.0},
        "a memory that nothing fits in": {"rss_mb": -1},
    },
)
def stopped_followers(
    site: Site,
    clients: int,
    rounds: int,
    size: int,
    stopped_s: float,
    share: float,
    rss_mb: float,
    told_s: float = 20.0,
    goes_on: bool = True,
) -> str:
    """The child writes as fast as without them, novad keeps little for them, and each learns of its gap."""
    result = site.folder / "seconds"
    site.write_config("")
    site.start()
    client = site.client()
    log = Log(f"{site.running.place.log_dir}/writer.log", 1_000_000, 2)
    argv = (sys.executable, "-S", "-c", MEASURED, str(size), str(result))
    writer = site.spec("writer", *argv, oneshot=True, restart="no", autostart=False, log=log)
    client.ask("up", cluster=site.cluster(writer), start=False)

    def write() -> float:
        client.ask("start", names=["writer"])
        require(client.ask("wait", **{"for": "done"}) == {"met": True}, "the writer ends")
        return float(result.read_text())

    write()
    alone_s = min(write() for _ in range(rounds))
    rss = oracle.rss_bytes(site.pid)
    followers = [_follower(site, number) for number in range(clients)]
    began_s = time.monotonic()
    for follower in followers:
        follower.send_signal(signal.SIGSTOP)
        until(lambda pid=follower.pid: getattr(oracle.look(pid), "state", "") == "T", 5, "the follower stops")
    watched_s = min(write() for _ in range(rounds))
    grown = oracle.rss_bytes(site.pid) - rss
    site.bell.hear_for(stopped_s - (time.monotonic() - began_s))
    for follower in followers if goes_on else ():
        follower.send_signal(signal.SIGCONT)
    # Not a line more is written: who goes on must learn of its gap all the same.
    for number, follower in enumerate(followers):
        told = site.folder / f"follower{number}.err"
        until(
            lambda told=told: "lines were left out" in told.read_text(),
            20,
            f"follower {number} learns of its gap",
        )
        require(follower.poll() is None, "it follows on")
    require(alone_s / watched_s >= share, f"{share:.0%} of the throughput: {alone_s:.2f} s, {watched_s:.2f} s")
    require(grown <= rss_mb * 1e6, f"memory +{rss_mb} MB at most: {grown / 1e6:.1f} MB")
    return (
        f"{size / alone_s / 1e6:.0f} MB/s alone, {alone_s / watched_s:.0%} of it beside {clients} stopped followers, "
        f"RSS {grown / 1e6:+.1f} MB, {clients} gaps told"
    )


def _follower(site: Site, number: int) -> subprocess.Popen[bytes]:
    """`novad logs -f`, known to follow: what it shows is a line that is there already."""
    out, err = site.folder / f"follower{number}.out", site.folder / f"follower{number}.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        follower = subprocess.Popen(
            [sys.executable, "-m", "novad", "-f", "nova.toml", "logs", "-f", "-n", "1", "writer"],
            cwd=site.folder, env=site.surroundings(), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
        )  # fmt: skip
    site.others.append(follower)
    until(lambda: out.read_bytes(), 20, "the follower shows the last line")
    return follower
