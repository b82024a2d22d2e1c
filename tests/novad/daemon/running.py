"""A real daemon process and blocking connections to it, for tests; what it starts is looked for in /proc."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from novad.core import wire
from novad.core.place import Place
from novad.core.spec import Cluster, Dependency, Log, ProcessSpec, to_json
from novad.host import proc

DEADLINE_S = 20.0


class Client:
    """One connection, blocking, with a deadline on every answer."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        # Blocking: a place in a full queue is waited for (connect(2)).
        self._socket.connect(path)
        self._socket.settimeout(DEADLINE_S)
        self._decoder = wire.Decoder()
        self._frames: list[wire.Frame] = []
        self._id = 0

    def send(self, verb: str, **args: Any) -> int:
        self._id += 1
        self._socket.sendall(wire.encode(wire.Request(self._id, verb, args)))
        return self._id

    def frame(self) -> wire.Frame:
        while not self._frames:
            data = self._socket.recv(65536)
            if not data:
                raise EOFError("the daemon closed the connection")
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    def answer(self, number: int) -> dict[str, Any]:
        kept: list[wire.Frame] = []
        while True:
            frame = self.frame()
            if isinstance(frame, wire.Reply) and frame.id == number:
                self._frames = kept + self._frames
                return frame.result
            if isinstance(frame, wire.Error) and frame.id == number:
                self._frames = kept + self._frames
                raise Refused(frame.code, frame.message, frame.hint)
            kept.append(frame)

    def ask(self, verb: str, **args: Any) -> dict[str, Any]:
        return self.answer(self.send(verb, **args))

    def event(self) -> dict[str, Any]:
        while True:
            frame = self.frame()
            if isinstance(frame, wire.Event):
                return frame.event

    def raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def is_cut_off(self) -> bool:
        """Reads until the daemon ends the connection; what it still says does not matter."""
        try:
            while self._socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def close(self) -> None:
        self._socket.close()


class Refused(Exception):
    """An error frame: code, message, hint."""


class Running:
    """A daemon process and where it keeps its things.

    `through` is a command that executes the daemon, to start it in a special state; `stderr` takes what it says.
    """

    def __init__(self, where: Place, stderr: int | None = None) -> None:
        self.place = where
        self.through: list[str] = []
        self.stderr = stderr
        self.process: subprocess.Popen[bytes] | None = None
        self.clients: list[Client] = []
        self.pids: list[int] = []

    def start(self) -> str:
        """Start the daemon; returns the line that it says."""
        os.makedirs(self.place.run_dir, 0o700, exist_ok=True)
        os.makedirs(self.place.log_dir, exist_ok=True)
        read_fd, write_fd = os.pipe()
        where = self.place
        self.process = subprocess.Popen(
            [*self.through, sys.executable, "-m", "novad.daemon", "--config", where.config, "--run-dir", where.run_dir,
             "--state-dir", where.state_dir, "--log-dir", where.log_dir, "--ready-fd", str(write_fd)],
            pass_fds=[write_fd], start_new_session=True, stdin=subprocess.DEVNULL,
            cwd=Path(__file__).parents[3], stderr=self.stderr,
        )  # fmt: skip
        self.pids.append(self.process.pid)
        os.close(write_fd)
        try:
            assert select.select([read_fd], [], [], DEADLINE_S)[0], "the daemon said nothing"
            return os.read(read_fd, 4096).decode().strip()
        finally:
            os.close(read_fd)

    def client(self) -> Client:
        self.clients.append(Client(self.place.socket))
        return self.clients[-1]

    def spec(self, name: str, *argv: str, after: list[str] | None = None, **fields: Any) -> ProcessSpec:
        service, _, replica = name.partition(".")
        wanted = tuple(
            Dependency(item.partition(":")[0], item.partition(":")[2] or "started")  # type: ignore[arg-type]
            for item in after or []
        )
        log = Log(f"{self.place.log_dir}/{name}.log")
        fields.setdefault("start_s", 0.05)
        return ProcessSpec(
            name, service, int(replica or 1), argv, self.place.dir, fields.pop("log", log), after=wanted, **fields
        )

    def cluster(self, *specs: ProcessSpec, **fields: Any) -> Cluster:
        where = self.place
        return Cluster(
            "test", "default", where.config, where.dir, where.run_dir, where.state_dir,
            {"PATH": os.environ["PATH"], "NOVAD_TEST": where.run_dir}, specs, **fields,
        )  # fmt: skip

    def up(self, *specs: ProcessSpec) -> Client:
        """A client of a daemon that runs `specs`, all ready."""
        assert self.start() == "ready"
        client = self.client()
        client.ask("up", cluster=to_json(self.cluster(*specs)))
        assert client.ask("wait", **{"for": "ready"}) == {"met": True}
        return client

    def live(self) -> dict[int, str]:
        """Every process that was started by this daemon and is alive: pid and mark."""
        found = {}
        for pid in proc.all_pids():
            if pid not in self.pids and proc.mark(pid, "NOVAD_TEST") == self.place.run_dir and proc.is_alive(pid):
                found[pid] = proc.mark(pid, "NOVAD_ID")
        return found

    def log(self, name: str) -> list[str]:
        return Path(f"{self.place.log_dir}/{name}.log").read_text(errors="surrogateescape").splitlines()

    def text(self, name: str, letter: str = "o") -> list[str]:
        """The lines of one stream, without their stamps."""
        return [line[30:] for line in self.log(name) if line[28] == letter]

    def end(self) -> None:
        for client in self.clients:
            client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.live():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
