"""nova-combined: the entire system in one process, broker and object store included.

It is what the services are, not a copy of them: each is made by the same function as in a process of its own, and calls
between them go through a broker. That broker is embedded, unless `--broker` names another. Services stop in tiers,
because a compute that drains still calls network, and everybody needs the broker to the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nova import exposition, flags, service
from nova.broker import main as broker_main
from nova.broker import report
from nova.broker import server as broker_server
from nova.running import DrainReport, Running

FLAGS = flags.FLAGS
flags.DEFINE_integer(
    "combined_broker_port", 0, "port of the broker inside nova-combined; 0 takes a free one", least=0
)

# In the order in which they stop; they start the other way round.
TIERS = ("api", "scheduler", "compute", "volume", "network", "objectstore")


def services() -> list[tuple[Any, int]]:
    """All services, each with its tier. Raises `NoManager`."""
    made: list[tuple[Any, int]] = [(service.create(f"nova-{topic}"), tier) for tier, topic in enumerate(TIERS)]
    if FLAGS.source("broker") == "default":
        made.append((BrokerService(), len(TIERS)))
    return made


def broker_folder() -> Path:
    return Path(FLAGS.state_path, "broker")


class BrokerService:
    """The embedded broker with the life of a service. When it is ready, the flag `broker` says where it is."""

    name = "nova-broker"
    topic = "broker"

    def __init__(self) -> None:
        self._server: broker_server.Server | None = None
        self.running = Running(self)

    @property
    def state(self) -> str:
        return self.running.state.value

    @property
    def inflight(self) -> list[Any]:
        """A broker works for others; what they have begun is in their own lists."""
        return []

    def samples(self) -> Iterable[exposition.Sample]:
        """What it adds to the metrics of its process."""
        return report.samples(self._server.broker) if self._server is not None else ()

    def start(self) -> None:
        """Start; returns when it accepts. Raises `JournalError`, `OSError`."""
        self.running.start()

    def stop(self, timeout: float | None = None) -> DrainReport:
        return self.running.stop(FLAGS.drain_timeout if timeout is None else timeout)

    def kill(self) -> None:
        self.running.kill()

    def wait(self) -> int:
        return self.running.wait()

    def reset(self) -> None:
        """HUP: it has nothing that could change."""

    # What follows is the Part that `Running` drives.

    def open(self) -> None:
        options = [f"--port={FLAGS.combined_broker_port}", f"--state_path={FLAGS.state_path}"]
        if FLAGS.broker_password_file:
            options.append(f"--password_file={FLAGS.broker_password_file}")
        # Flags of other processes, such as NOVA_PORT, are not for this broker.
        self._server = broker_server.embedded(options, environ={})
        self._server.start()
        FLAGS.set_default("broker", self._server.url)
        # The port, for nova-manage; the password is in a file already.
        broker_main.write_atomically(broker_folder() / "port", f"{self._server.port}\n")

    def drain(self, timeout_s: float) -> None:
        """Everybody who used it has stopped: it is in the last tier."""

    def unfinished(self) -> list[Any]:
        return []

    def sever(self) -> None:
        """The journal has what was confirmed; there is nothing to hurry for."""

    def close(self) -> None:
        if self._server is None:
            return
        from nova import rpc

        rpc.cleanup()  # or our own client would look for a broker that ends
        self._server.stop()
        (broker_folder() / "port").unlink(missing_ok=True)

    def report(self, state: str) -> None:
        """Nobody keeps a row about the broker."""


def find_broker() -> None:
    """For a command beside a running nova-combined: let the flag `broker` say where its broker is."""
    port_file = broker_folder() / "port"
    if FLAGS.source("broker") != "default" or not os.path.exists(port_file):
        return
    FLAGS.set_default("broker", f"amqp://127.0.0.1:{port_file.read_text().strip()}/")
    if not FLAGS.broker_password_file:
        FLAGS.set_default("broker_password_file", str(broker_folder() / "password"))
