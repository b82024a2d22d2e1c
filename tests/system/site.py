"""One cluster of victims in a directory of its own, and the means to harm it.

Every victim rings: it writes `name pid` into a FIFO as its first act, so that a start is an event with a time
and not something to be polled for.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from novad.core.place import place
from novad.core.spec import Backoff, Cluster, ProcessSpec, Python, to_json
from tests.novad.daemon.running import Client, Running
from tests.system import oracle
from tests.system.oracle import Seen

RING = 'echo "$VICTIM $$" >> "$BELL"; '
# As a module: what a shell does otherwise.
RINGER = """
import os, time
with open(os.environ["BELL"], "a") as bell:
    bell.write(f"{os.environ['VICTIM']} {os.getpid()}\\n")
time.sleep(600)
"""
# Restarts at once for ever: for experiments in which a death is the harness's doing.
UNTIRING: Mapping[str, Any] = {
    "start_s": 0.0, "backoff": Backoff(0.01, 0.01, 0.0), "give_up_after": 1_000_000, "restart": "always",
}  # fmt: skip


class Ring:
    """A victim said that it runs."""

    __slots__ = ("at_s", "name", "pid")

    def __init__(self, name: str, pid: int, at_s: float) -> None:
        self.name, self.pid, self.at_s = name, pid, at_s


class Bell:
    """The FIFO that victims ring; reading it never ends, because we hold it open for writing too."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        # Room for thousands of starts while nobody listens, so that no victim waits for us.
        fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, 1024 * 1024)
        self._rest = b""

    def hear(self, seconds: float) -> list[Ring]:
        """What has rung, at the latest after `seconds`; empty when nothing has."""
        if not select.select([self._fd], [], [], max(seconds, 0.0))[0]:
            return []
        data = self._rest + os.read(self._fd, 1024 * 1024)
        at_s = time.monotonic()
        *lines, self._rest = data.split(b"\n")
        return [Ring(name, int(pid), at_s) for name, pid in (line.decode().rsplit(" ", 1) for line in lines)]

    def hear_for(self, seconds: float) -> list[Ring]:
        """Everything that rings within `seconds`."""
        rings, until_s = [], time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            rings += self.hear(left_s)
        return rings

    def await_all(self, names: set[str], seconds: float) -> dict[str, Ring]:
        """One ring of each name, the last of each. What is missing after `seconds` is missing in the answer."""
        found: dict[str, Ring] = {}
        until_s = time.monotonic() + seconds
        while names - found.keys() and (left_s := until_s - time.monotonic()) > 0:
            found |= {ring.name: ring for ring in self.hear(left_s)}
        return found

    def close(self) -> None:
        os.close(self._fd)


class Site:
    """A daemon, its victims and its clients; `end` leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = uuid.uuid4().hex
        where = place(str(folder / "nova.toml"), "default", str(folder / "run"), "/tmp", os.getuid())
        self._complaints = (folder / "complaints").open("wb")
        self.running = Running(where, stderr=self._complaints.fileno())
        self.bell = Bell(folder / "bell")
        self.others: list[subprocess.Popen[bytes]] = []

    # -- the daemon

    @property
    def pid(self) -> int:
        assert self.running.process is not None
        return self.running.process.pid

    def start(self) -> None:
        """Start the daemon. Raises `AssertionError` where it does not get ready."""
        said = self.running.start()
        assert said == "ready", said

    def crash(self) -> None:
        """SIGKILL to the daemon, and its death awaited."""
        assert self.running.process is not None
        self.running.process.kill()
        self.running.process.wait()

    def client(self) -> Client:
        return self.running.client()

    def up(self, *specs: ProcessSpec) -> Client:
        """Start the daemon with `specs`; a client, when all are ready."""
        self.start()
        client = self.client()
        client.ask("up", cluster=self.cluster(*specs))
        client.ask("wait", **{"for": "ready"})
        return client

    def cluster(self, *specs: ProcessSpec) -> dict[str, Any]:
        """The cluster of `specs` as it is sent to a daemon."""
        found: Cluster = self.running.cluster(*specs)
        env = {"PATH": os.environ["PATH"], "SITE": self.token, "BELL": f"{self.folder}/bell"}
        cluster: dict[str, Any] = to_json(replace(found, env=env))
        return cluster

    def spec(self, name: str, *argv: str, **fields: Any) -> ProcessSpec:
        """A process that the oracle knows by `name`."""
        env = {"VICTIM": name, **fields.pop("env", {})}
        return self.running.spec(name, *argv, env=env, **fields)

    def sleeper(self, name: str, **fields: Any) -> ProcessSpec:
        """Rings and sleeps."""
        return self.shell(name, "exec sleep 600", **fields)

    def shell(self, name: str, script: str, **fields: Any) -> ProcessSpec:
        """Rings and goes on with `script`."""
        return self.spec(name, "/bin/sh", "-c", RING + script, **fields)

    def preloaded(self, name: str, **fields: Any) -> ProcessSpec:
        """Rings and sleeps, in Python; forked from a template where the cluster has something to `preload`."""
        (self.folder / "ringer.py").write_text(RINGER)
        return self.spec(name, sys.executable, "-m", "ringer", python=Python("ringer"), **fields)

    # -- the command

    def novad(
        self, *words: str, config: str = "nova.toml", environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """The command as a user types it, its output in pipes; `environ` is added to what it gets."""
        return subprocess.Popen(
            [sys.executable, "-m", "novad", "-f", config, *words],
            cwd=self.folder, env=self.surroundings() | dict(environ or {}), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="surrogateescape",
        )  # fmt: skip

    def ask(self, *words: str, seconds: float = 60.0) -> str:
        """What the command prints. Raises `AssertionError` where it fails."""
        process = self.novad(*words)
        out, err = process.communicate(timeout=seconds)
        assert process.returncode == 0, f"novad {' '.join(words)}: exit {process.returncode}: {err}"
        return out

    def surroundings(self) -> dict[str, str]:
        root = str(Path(__file__).parents[2])
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return {**kept, "PYTHONPATH": root, "XDG_RUNTIME_DIR": str(self.folder / "run"), "NO_COLOR": "1"}

    def write_config(self, text: str) -> None:
        """A nova.toml whose services ring and carry the token. `text` holds tables of services."""
        (self.folder / "run").mkdir(mode=0o700, exist_ok=True)
        env = f'[env]\nSITE = "{self.token}"\nBELL = "{self.folder}/bell"\n'
        (self.folder / "nova.toml").write_text(env + text)

    def daemons(self) -> list[int]:
        """Every daemon that runs out of this directory, whoever started it."""
        found = oracle.processes(f"{self.folder}/")
        return [seen.pid for seen in found if " novad.daemon " in seen.command]

    def complaints(self) -> str:
        """What daemons of ours wrote to stderr, a traceback for instance."""
        said = (self.folder / "complaints").read_text(errors="replace")
        log = self.folder / ".novad" / "novad.log"
        return said + (log.read_text(errors="replace") if log.exists() else "")

    # -- what is true

    def live(self) -> list[Seen]:
        """Every living process of this site, the daemon not among them."""
        return [seen for seen in oracle.processes(self.token) if seen.pid not in self.running.pids]

    def leaders(self) -> dict[str, list[Seen]]:
        """The living instances of each service."""
        found: dict[str, list[Seen]] = {}
        for seen in self.live():
            if seen.is_leader and seen.service:
                found.setdefault(seen.service, []).append(seen)
        return found

    def doubled(self) -> list[str]:
        """Services of which two instances live."""
        return [
            f"{name}: {[seen.pid for seen in found]}" for name, found in self.leaders().items() if len(found) > 1
        ]

    def end(self) -> None:
        """End the daemon and everything that carries the token."""
        self.running.end()
        for other in self.others:
            other.kill()
            other.wait()
        for pid in self.daemons():
            os.kill(pid, signal.SIGKILL)
        self.end_victims()
        self.bell.close()
        self._complaints.close()

    def end_victims(self) -> None:
        """KILL to everything that carries the token."""
        for _ in range(50):
            left = self.live()
            for seen in left:
                try:
                    os.kill(seen.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if not left:
                break
