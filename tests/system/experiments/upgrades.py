"""novad replaces its own code while everything goes on."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from novad.core.spec import Log, ProcessSpec
from tests.novad.daemon.running import Client, Refused
from tests.system.board import experiment, require, spread_ms, until
from tests.system.experiments.floods import sha_of_lines
from tests.system.site import Site

# Pieces of lines, so that an upgrade finds unfinished ones; what it was worth is said at the end.
WRITER = """
import hashlib, os, sys, time
end, result, sha, number = sys.argv[1], sys.argv[2], hashlib.sha256(), 0
piece = b"".join(b"%d " % n + b"x" * (n % 300) + b"\\n" for n in range(300))
at = 0
while not os.path.exists(end):
    data = (piece + piece)[at:at + 1001]
    at = (at + 1001) % len(piece)
    os.write(1, data)
    sha.update(data)
    time.sleep(0.002)
os.write(1, b"\\n")
sha.update(b"\\n")
with open(result + ".new", "w") as file:
    file.write(sha.hexdigest())
os.rename(result + ".new", result)
time.sleep(600)
"""
BROKEN = ("this is no Python", "import no_such_module", "raise SystemExit(3)")


@experiment(
    "R26",
    "novad replaces its code again and again under load, three times by what does not work",
    short={"upgrades": 5, "writers": 2, "sleepers": 5},
    full={"upgrades": 100, "writers": 5, "sleepers": 20},
    controls={
        "a child that is restarted meanwhile": {"upgrades": 1, "kill": True},
        "a byte of a log that is different": {"upgrades": 1, "tamper": True},
        "broken code that is not in the way": {"upgrades": 1, "breaks": False},
    },
)
def upgrade_again_and_again(
    site: Site,
    upgrades: int,
    writers: int,
    sleepers: int,
    kill: bool = False,
    tamper: bool = False,
    breaks: bool = True,
) -> str:
    """Same pids, same daemon, every byte in the log; a client at any moment is answered or told to come again."""
    broken = site.folder / "broken"
    site.running.through = ["env", f"PYTHONPATH={broken}:{Path(__file__).parents[3]}"]
    quiet = {f"v{number}" for number in range(sleepers)}
    specs = [*(_writer(site, f"w{number}") for number in range(writers)), *map(site.sleeper, sorted(quiet))]
    site.start()
    client = site.client()
    client.ask("up", cluster=site.cluster(*specs, site.preloaded("p")) | {"preload": ["json"]})
    client.ask("wait", **{"for": "ready"})
    pids = {name: seen.pid for name, [seen] in site.leaders().items()}
    require(pids.keys() == {*quiet, "p", *(spec.name for spec in specs)}, f"all live: {sorted(pids)}")
    took_s, refused = [], 0
    with _load(site) as answers:
        for number in range(upgrades):
            if breaks and (at := number * len(BROKEN) // upgrades) >= refused:
                refused += _is_refused(client, broken / "novad" / "__init__.py", BROKEN[min(at, 2)])
            if kill:
                os.kill(pids["v0"], 9)
            began_s = time.monotonic()
            client = _upgrade(site, client)
            took_s.append(time.monotonic() - began_s)
            now = {name: seen.pid for name, [seen, *_] in site.leaders().items()}
            require(now == pids, f"upgrade {number}: no child is another: {now.items() ^ pids.items()}")
    for text in BROKEN[refused:]:
        refused += breaks and _is_refused(client, broken / "novad" / "__init__.py", text)
    require(refused == len(BROKEN), f"{len(BROKEN)} upgrades to broken code are refused: {refused}")
    rows = client.ask("status")["processes"]
    require({row["state"] for row in rows} == {"ready"}, "all are ready")
    require(not any(row["restarts"] for row in rows), "and none was restarted")
    kept = _expect_logs_whole(site, writers, tamper)
    require(bool(answers), "others were answered meanwhile")
    return (
        f"{upgrades} upgrades {spread_ms(took_s)}, {refused} refused, 0 restarts, {len(answers)} answers to others, "
        f"{kept / 1e6:.1f} MB of logs equal by sha256"
    )


def _writer(site: Site, name: str) -> ProcessSpec:
    argv = (sys.executable, "-S", "-c", WRITER, f"{site.folder}/end", f"{site.folder}/{name}.sha")
    return site.spec(name, *argv, log=Log(f"{site.running.place.log_dir}/{name}.log", 1 << 40, 2))


def _upgrade(site: Site, client: Client) -> Client:
    """A client of the new code, once that answers; it is the same process."""
    client.ask("upgrade")
    client.is_cut_off()
    client = until(lambda: _connect(site), 10, "the new code answers")
    require(client.ask("ping")["pid"] == site.pid, "an upgraded novad has the pid that it had")
    return client


def _connect(site: Site) -> Client | None:
    with suppress(OSError, EOFError):
        client = Client(site.running.place.socket)
        client.ask("ping")
        site.running.clients.append(client)
        return client
    return None


def _is_refused(client: Client, path: Path, text: str) -> bool:
    """Whether novad goes on as it is where its code would not start."""
    path.parent.mkdir(parents=True)
    path.write_text(text)
    try:
        client.ask("upgrade")
    except Refused as refusal:
        return "the new code does not start" in str(refusal)
    finally:
        shutil.rmtree(path.parents[1])
    return False


@contextmanager
def _load(site: Site) -> Iterator[list[float]]:
    """Two others who ask for the status all the time; how long each answer took."""
    answers: list[float] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.005):
            began_s = time.monotonic()
            with suppress(OSError, EOFError):
                client = Client(site.running.place.socket)
                try:
                    client.ask("status")
                    answers.append(time.monotonic() - began_s)
                finally:
                    client.close()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _expect_logs_whole(site: Site, writers: int, tamper: bool) -> int:
    """How many bytes there are, all of them as they were written."""
    (site.folder / "end").touch()
    results = [site.folder / f"w{number}.sha" for number in range(writers)]
    until(lambda: all(result.exists() for result in results), 10, "every writer ends")
    # All that was written is in the log before novad says that they are stopped.
    site.client().ask("stop")
    size = 0
    for number, result in enumerate(results):
        log = Path(site.running.place.log_dir) / f"w{number}.log"
        if tamper:
            log.write_bytes(log.read_bytes().replace(b"xx", b"xy", 1))
        size += log.stat().st_size
        require(sha_of_lines(log) == result.read_text(), f"{log.name} is what was written")
    return size
