"""novad and its peers, each as one class: write a configuration, start, ask for status, stop.

A peer runs named commands; it gets no option beyond what it needs for that, so what is measured is its default
behaviour. Log capture is always on, in the way that the peer's own documentation shows first.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import xmlrpc.client
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.system.site import Site

VENV = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "novad-bench" / "venv"
PINNED = ("supervisor==4.3.0", "circus==0.19.0", "honcho==2.0.0", "setuptools<81")

Commands = dict[str, list[str]]


class Peer:
    """One supervisor in `folder`. `tool` is what has to be installed for it."""

    name = ""
    tool = ""
    stamps = False
    restarts = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def is_here(cls) -> bool:
        return shutil.which(cls.tool) is not None

    def configure(self, commands: Commands) -> None:
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def status_command(self) -> list[str] | None:
        return None

    def connection(self) -> Callable[[], object] | None:
        """Asks for the status of everything over a connection that stays open."""
        return None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=(self.folder / "out").open("wb"),
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def stop(self) -> None:
        """Ask it to stop everything; returns at once."""
        assert self.process is not None
        self.process.terminate()

    def own_pids(self) -> list[int]:
        """The peer's own processes: all that descend from it but the children that it runs."""
        return [pid for pid, words in self._tree() if b"bench-child" not in words.split(b"\0")[0]]

    def _tree(self) -> list[tuple[int, bytes]]:
        """The peer and all that descends from it, with their command lines."""
        assert self.process is not None
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                threads = Path(f"/proc/{pid}/task").iterdir()
                queue += [int(kid) for task in threads for kid in (task / "children").read_text().split()]
            except OSError:
                continue
            found.append((pid, words))
        return found

    def end(self) -> None:
        """Kill it with everything below it."""
        if self.process is None:
            return
        for pid, _ in self._tree():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


class Novad(Peer):
    name, tool, stamps = "novad", "python3", True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.site = Site(folder)
        self.client: Any = None

    def configure(self, commands: Commands) -> None:
        self.site.write_config("")
        # As the compiler would give them: all defaults.
        self.specs = [self.site.spec(name, *argv, start_s=1.0) for name, argv in commands.items()]

    def start(self) -> None:
        self.site.start()
        self.process = self.site.running.process
        self.client = self.site.client()
        self.client.ask("up", cluster=self.site.cluster(*self.specs))

    def status_command(self) -> list[str]:
        return [sys.executable, "-m", "novad", "status"]

    def connection(self) -> Callable[[], object]:
        client = self.site.client()
        return lambda: client.ask("status")

    def stop(self) -> None:
        self.client.send("stop")

    def end(self) -> None:
        super().end()
        self.site.end()


class Loop(Peer):
    """A raw loop that forks, executes and waits."""

    def configure(self, commands: Commands) -> None:
        (self.folder / "commands").write_text("".join(" ".join(argv) + "\n" for argv in commands.values()))


class LoopC(Loop):
    name, tool = "raw C", "cc"

    def command(self) -> list[str]:
        source = Path(__file__).parent / "raw" / "loop.c"
        subprocess.run(["cc", "-O2", "-o", self.folder / "loop", source], check=True)
        return [f"{self.folder}/loop", "commands"]


class LoopPython(Loop):
    name, tool = "raw Python", "python3"

    def command(self) -> list[str]:
        return [sys.executable, "-S", str(Path(__file__).parent / "raw" / "loop.py"), "commands"]


class Indexed(Peer):
    """From the package index, in an environment of the benchmark's own."""

    @classmethod
    def is_here(cls) -> bool:
        if not (VENV / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
            subprocess.run([VENV / "bin" / "pip", "install", "--quiet", *PINNED], check=True)
        return (VENV / "bin" / cls.tool).exists()


class Supervisor(Indexed):
    name, tool = "supervisor", "supervisord"

    def configure(self, commands: Commands) -> None:
        text = f"""[supervisord]\nnodaemon=true\nlogfile={self.folder}/d.log\npidfile={self.folder}/d.pid
[unix_http_server]\nfile={self.folder}/s\n[supervisorctl]\nserverurl=unix://{self.folder}/s
[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"""
        for name, argv in commands.items():
            text += f"[program:{name}]\ncommand={' '.join(argv)}\nstdout_logfile={self.folder}/{name}.log\n"
        (self.folder / "s.conf").write_text(text)

    def command(self) -> list[str]:
        return [f"{VENV}/bin/supervisord", "-c", "s.conf"]

    def status_command(self) -> list[str]:
        return [f"{VENV}/bin/supervisorctl", "-c", "s.conf", "status"]

    def connection(self) -> Callable[[], object]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(f"{self.folder}/s")
        call = xmlrpc.client.dumps((), "supervisor.getAllProcessInfo")

        def ask() -> object:
            connection.request("POST", "/RPC2", call, {"Content-Type": "text/xml"})
            return xmlrpc.client.loads(connection.getresponse().read())

        return ask


class Circus(Indexed):
    name, tool = "circus", "circusd"

    def configure(self, commands: Commands) -> None:
        ends = "\n".join(f"{key} = ipc://{self.folder}/{key}" for key in ("endpoint", "pubsub_endpoint"))
        text = f"[circus]\n{ends}\nstatsd = false\n"
        for name, argv in commands.items():
            text += f"[watcher:{name}]\ncmd = {' '.join(argv)}\nstdout_stream.class = FileStream\n"
            text += f"stdout_stream.filename = {self.folder}/{name}.log\n"
        (self.folder / "c.ini").write_text(text)

    def command(self) -> list[str]:
        return [f"{VENV}/bin/circusd", "c.ini"]

    def status_command(self) -> list[str]:
        return [f"{VENV}/bin/circusctl", "--endpoint", f"ipc://{self.folder}/endpoint", "status"]


class Honcho(Indexed):
    """One death ends all, so it restarts nothing."""

    name, tool, restarts, stamps = "honcho", "honcho", False, True

    def configure(self, commands: Commands) -> None:
        (self.folder / "Procfile").write_text("".join(f"{name}: {' '.join(a)}\n" for name, a in commands.items()))

    def command(self) -> list[str]:
        return [f"{VENV}/bin/honcho", "start"]


class ServiceDirectories(Peer):
    """The family of daemontools: a directory and a process for each service, and one more for its log."""

    logger: Sequence[str] = ()

    def configure(self, commands: Commands) -> None:
        (self.folder / "scan").mkdir()
        for name, argv in commands.items():
            self._write(self.folder / "scan" / name / "run", " ".join(argv))
            (self.folder / "logs" / name).mkdir(parents=True)
            logger = " ".join([*self.logger, f"{self.folder}/logs/{name}"])
            self._write(self.folder / "scan" / name / "log" / "run", logger)

    def _write(self, path: Path, command: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\nexec {command}\n")
        path.chmod(0o755)

    def directories(self) -> list[str]:
        return sorted(str(path) for path in (self.folder / "scan").iterdir() if not path.name.startswith("."))


class Runit(ServiceDirectories):
    name, tool, logger, stamps = "runit", "runsvdir", ("svlogd", "-tt"), True

    def command(self) -> list[str]:
        return ["runsvdir", "scan"]

    def status_command(self) -> list[str]:
        return ["sv", "status", *self.directories()]

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)


class S6(ServiceDirectories):
    name, tool, logger, stamps = "s6", "s6-svscan", ("s6-log", "T", "n3", "s10485760"), True

    def command(self) -> list[str]:
        return ["s6-svscan", "-c", "1500", "scan"]

    def status_command(self) -> list[str]:
        folders = " ".join(self.directories())
        return ["sh", "-c", f"for d in {folders}; do s6-svstat $d; done"]


class Daemontools(ServiceDirectories):
    name, tool, logger, stamps = "daemontools", "svscan", ("multilog", "t", "n3", "s10485760"), True

    def command(self) -> list[str]:
        return ["svscan", "scan"]

    def status_command(self) -> list[str]:
        return ["svstat", *self.directories()]

    def stop(self) -> None:
        super().stop()
        folders = self.directories()
        subprocess.run(["svc", "-dx", *folders, *(f"{folder}/log" for folder in folders)], check=True)


PEERS: list[type[Peer]] = [
    Novad, LoopC, LoopPython, Supervisor, Circus, Honcho, Runit, S6, Daemontools,
]  # fmt: skip
