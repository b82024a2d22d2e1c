"""A bus under novad: nova-broker, services that count, and a process that sends them work at a steady pace."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import amqp
import psutil
from nova.broker import engine
from nova.rpc.topology import DEAD_LETTERS

from novad.core.spec import Probe, ProcessSpec
from tests.ports import port_for_a_restart
from tests.services.rpc.running import Proxy
from tests.system.board import Skip, require
from tests.system.site import UNTIRING, Site

ROOT = Path(__file__).parents[2]
PATHS = {"PYTHONPATH": f"{ROOT}:{ROOT}/services", "PYTHONWARNINGS": "ignore"}
BROKER = "broker"
# Which broker: own, or rabbitmq, a node of the installed one that belongs to the experiment alone.
ENGINE = os.environ.get("NOVA_TEST_ENGINE", "own")
# RabbitMQ needs several seconds to start.
START_S = {"own": 20.0, "rabbitmq": 60.0}


class Operation(NamedTuple):
    """What the load says of one call (n even) or cast; times are monotonic."""

    n: int
    began_s: float
    ended_s: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Effects:
    """What the services' database and file say."""

    counter: int
    per_operation: Counter[int]
    executions: Counter[str]

    def lost(self, numbers: range) -> list[int]:
        return [n for n in numbers if n not in self.per_operation]

    @property
    def doubled(self) -> list[int]:
        return [n for n, count in self.per_operation.items() if count > 1]


class Bus:
    """`consumers` are t1, t2 ...; `flags` are those of the consumers, which reach the broker through `proxy`.

    `others` run as well, each by its name and the words of its command; `idle` ones wait to be started.
    """

    def __init__(
        self,
        site: Site,
        consumers: int,
        *flags: str,
        is_proxied: bool = False,
        others: Mapping[str, str] = MappingProxyType({}),
        idle: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        if ENGINE == "rabbitmq" and not any(map(shutil.which, engine.SERVERS)):
            raise Skip("rabbitmq-server is not installed")
        self.site = site
        self.folder = site.folder / "state"
        self.port = port_for_a_restart()
        self.proxy = Proxy(("127.0.0.1", self.port)) if is_proxied else None
        self.names = [f"t{number + 1}" for number in range(consumers)]
        self.client = site.up(
            self._broker(),
            *(self._consumer(name, flags) for name in self.names),
            *(self._nova(name, " ".join((words, *self.flags()))) for name, words in others.items()),
            *(
                self._nova(name, " ".join((words, *self.flags())), autostart=False)
                for name, words in idle.items()
            ),
        )
        rings = site.bell.await_all({BROKER, *self.names, *others}, START_S[ENGINE])
        self.pids = {name: ring.pid for name, ring in rings.items()}

    def flags(self) -> list[str]:
        """What leads a process of nova onto this bus."""
        port = self.port if self.proxy is None else self.proxy.port
        return [
            f"--broker=amqp://127.0.0.1:{port}/",
            f"--broker_password_file={self.folder}/broker/password",
            f"--state_path={self.folder}",
        ]

    def _broker(self) -> ProcessSpec:
        return self._nova(BROKER, f"nova-broker --engine={ENGINE} --port={self.port} --state_path={self.folder}")

    def _consumer(self, name: str, flags: tuple[str, ...]) -> ProcessSpec:
        manager = "--tally_manager=tests.system.tally.Tally"
        return self._nova(name, f"nova-tally --host={name} {manager} {' '.join((*self.flags(), *flags))}")

    def _nova(self, name: str, words: str, **fields: Any) -> ProcessSpec:
        script = f"exec {sys.executable} -m nova {words}"
        return self.site.shell(name, script, env=PATHS, ready=Probe(notify=True), **UNTIRING, **fields)

    def await_ready(self, name: str) -> None:
        answer = self.client.ask("wait", names=[name], **{"for": "ready"})
        require(answer == {"met": True}, f"{name} gets ready again: {answer}")

    def kill(self, name: str) -> None:
        """SIGKILL to a process that serves; returns when its successor has begun to start."""
        self.await_ready(name)
        self.signal(name, signal.SIGKILL)
        self.await_successor(name)

    def signal(self, name: str, number: int) -> None:
        """To the process; to a broker with all that it consists of."""
        pids = [self.pids[name]]
        if name == BROKER:
            pids += [child.pid for child in psutil.Process(self.pids[name]).children(recursive=True)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def await_successor(self, name: str) -> None:
        rings = self.site.bell.await_all({name}, 20)
        require(name in rings, f"{name} is restarted")
        self.pids[name] = rings[name].pid

    def effects(self) -> Effects:
        database = sqlite3.connect(f"file:{self.folder}/nova.sqlite?mode=ro", uri=True, timeout=10)
        try:
            (counter,) = database.execute("select value from counter").fetchone()
            numbers = Counter(n for (n,) in database.execute("select n from effects"))
        finally:
            database.close()
        return Effects(counter, numbers, self.executions())

    def executions(self) -> Counter[str]:
        """How often each operation has begun (`add 7`)."""
        file = self.folder / "executions"
        lines = file.read_text().splitlines() if file.exists() else []
        return Counter(line.rpartition(" ")[0] for line in lines)

    def dead_letters(self) -> list[dict[str, Any]]:
        """The headers of what was buried, taken out of its queue."""
        password = (self.folder / "broker" / "password").read_text().strip()
        connection = amqp.Connection(f"127.0.0.1:{self.port}", "nova", password, login_method="PLAIN")
        connection.connect()
        with connection:
            channel, found = connection.channel(), []
            while (message := channel.basic_get(DEAD_LETTERS, no_ack=True)) is not None:
                found.append(message.properties["application_headers"])
        return found

    def await_dead_letters(self, count: int, seconds: float) -> list[dict[str, Any]]:
        """As `dead_letters`, when there are `count` of them or `seconds` have gone by."""
        until_s = time.monotonic() + seconds
        found = self.dead_letters()
        while len(found) < count and time.monotonic() < until_s:
            time.sleep(0.1)
            found += self.dead_letters()
        return found

    def logs(self) -> str:
        """What the services wrote."""
        return "".join(
            path.read_text(errors="replace") for path in Path(self.site.running.place.log_dir).glob("t*.log")
        )

    def settle(self, operations: int, seconds: float) -> Effects:
        """The effects, when each of `operations` is there or `seconds` have gone by."""
        until_s = time.monotonic() + seconds
        while len((found := self.effects()).per_operation) < operations and time.monotonic() < until_s:
            time.sleep(0.05)
        return found


class Load:
    """The process of tests.system.load; ended by the site at the latest."""

    def __init__(self, bus: Bus, operations: int, pace: float, *flags: str) -> None:
        self.operations = operations
        self._launched = 0
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "tests.system.load", *bus.flags(),
                f"--operations={operations}", f"--pace={pace}", *flags,
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, **PATHS},
        )  # fmt: skip
        self._read = b""
        bus.site.others.append(self._process)

    def permit(self, operations: int) -> None:
        """Launch up to the operation of this number."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{operations}\n".encode())
        self._process.stdin.flush()

    def await_launched(self, operations: int, seconds: float = 30.0) -> None:
        until_s = time.monotonic() + seconds
        while self._launched < operations:
            self._launched = int(self._line(until_s).removeprefix(b"launched "))

    def results(self, seconds: float) -> list[Operation]:
        """When all have ended. Raises `Violation` when they have not after `seconds`."""
        until_s = time.monotonic() + seconds
        while not (line := self._line(until_s)).startswith(b"{"):
            pass
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)
        said = json.loads(line)
        require(said["left"] == 0, f"nobody waits when all have ended: {said['left']}")
        return [Operation(*values) for values in said["operations"]]

    def _line(self, until_s: float) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._read:
            left_s = max(0.0, until_s - time.monotonic())
            readable = select.select([self._process.stdout], [], [], left_s)[0]
            require(bool(readable), f"operations end ({self._launched} of {self.operations} were launched)")
            data = os.read(self._process.stdout.fileno(), 1024 * 1024)
            require(data != b"", f"the load lives (exit {self._process.poll()})")
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line
