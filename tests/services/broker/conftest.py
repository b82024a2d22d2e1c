"""A nova-broker process of its own for a test, and waiting that ends."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import amqp
import pytest

SERVICES = Path(__file__).parents[3] / "services"
START = "import sys; from nova.broker.main import main; sys.exit(main(sys.argv[1:]))"
DEADLINE_S = 15.0


class BrokerProcess:
    """nova-broker with its state in `folder`; ready once the constructor returns."""

    def __init__(self, folder: Path, *flags: str, port: int = 0, deadline_s: float = DEADLINE_S) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        environ = {key: value for key, value in os.environ.items() if not key.startswith("NOVA_")}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(b"")  # the kernel finds a free abstract name (unix(7))
            environ |= {"NOTIFY_SOCKET": "@" + notified.getsockname()[1:].decode(), "PYTHONPATH": str(SERVICES)}
            arguments = [f"--port={port}", f"--state_path={folder}", f"--port_file={folder}/port", *flags]
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, *arguments], env=environ, stderr=subprocess.PIPE
            )
            pidfd = os.pidfd_open(self.process.pid)
            ready, _, _ = select.select([notified, pidfd], [], [], deadline_s)
            os.close(pidfd)
            if notified not in ready:
                self.process.kill()
                pytest.fail(f"nova-broker did not become ready: {self.process.communicate()[1].decode()}")
            assert b"READY=1" in notified.recv(4096)
        self.port = int((folder / "port").read_text())
        self.password = (folder / "broker" / "password").read_text().strip()

    @property
    def url(self) -> str:
        return f"amqp://nova:{self.password}@127.0.0.1:{self.port}//"

    def connect(self, **options: object) -> amqp.Connection:
        connection = amqp.Connection(f"127.0.0.1:{self.port}", "nova", self.password, **options)
        connection.connect()
        return connection

    def kill(self) -> None:
        self.process.kill()
        self._end()

    def terminate(self) -> int:
        """Asks it to end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._end()

    def _end(self) -> int:
        self.errors = self.process.communicate(timeout=DEADLINE_S)[1].decode()
        return self.process.returncode


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[Callable[..., BrokerProcess]]:
    """Starts brokers that share the test's folder unless told otherwise; all are gone afterwards."""
    started: list[BrokerProcess] = []

    def start(*flags: str, folder: Path | None = None, **given: float) -> BrokerProcess:
        started.append(BrokerProcess(folder or tmp_path / "state", *flags, **given))
        return started[-1]

    yield start
    for broker in started:
        if broker.process.poll() is None:
            broker.kill()


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """One broker for all tests that only need some broker; not strict, as RabbitMQ 3 is not."""
    broker = BrokerProcess(tmp_path_factory.mktemp("broker"), "--no-strict", "--allow_guest", "--vhosts=/,other")
    yield broker
    if broker.process.poll() is None:
        assert broker.terminate() == 0


def drain_until(connection: amqp.Connection, is_done: Callable[[], object]) -> None:
    """Handles what arrives until `is_done`, with a deadline."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not is_done():
        left_s = deadline_s - time.monotonic()
        assert left_s > 0, "what the test waits for did not happen"
        connection.drain_events(timeout=left_s)


@pytest.fixture(name="drain_until")
def drain_until_fixture() -> Callable[..., None]:
    return drain_until


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        assert select.select([sock], [], [], DEADLINE_S)[0], "nothing arrived"
        piece = sock.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data
