"""What the tests of RPC run against: a bus, a proxy with the faults of a network, services that can be killed."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import amqp
from nova import context, green, rpc
from nova.flags import FLAGS
from nova.rpc import fake
from nova.rpc.options import broker_address

PATIENCE_S = 10.0
SERVICES = Path(__file__).parents[3] / "services"


class Bus:
    """A topic of its own on some broker, and what a test needs around it."""

    def __init__(self, name: str, state_path: Path) -> None:
        self.name = name
        self.topic = f"t{uuid.uuid4().hex[:10]}"
        self.context = context.RequestContext(user_id="user", project_id="project", request_id="req-1")
        self.state_path = state_path
        self._servers: list[Any] = []

    def serve(self, dispatch: Callable, host: str = "h1", prefetch: int | None = None, **options: Any) -> Any:
        """A started server, closed at the end of the test."""
        server = rpc.get_server(self.topic, host, dispatch, prefetch, **options)
        self._servers.append(server)
        server.start(PATIENCE_S)
        return server

    def call(self, method: str, host: str | None = None, timeout: float | None = PATIENCE_S, **args: Any) -> Any:
        topic = f"{self.topic}.{host}" if host else self.topic
        return rpc.call(self.context, topic, {"method": method, "args": args}, timeout)

    def cast(self, method: str, host: str | None = None, **args: Any) -> None:
        topic = f"{self.topic}.{host}" if host else self.topic
        rpc.cast(self.context, topic, {"method": method, "args": args})

    def depth(self, queue: str | None = None) -> int:
        """Messages that wait in a queue (default: the topic's)."""
        name = queue or self.topic
        if self.name == "fake":
            return fake.broker.depth(name)
        with self.connection() as connection:
            return connection.channel().queue_declare(name, passive=True).message_count

    def connection(self) -> amqp.Connection:
        address = broker_address()
        host = f"{address.host}:{address.port}"
        connection = amqp.Connection(host, address.user, address.password, login_method="PLAIN")
        connection.connect()
        return connection

    def end_servers(self) -> None:
        for server in self._servers:
            server.close()

    def close(self) -> None:
        self.end_servers()
        rpc.cleanup()
        if self.name == "fake":
            fake.broker.__init__()
            return
        with self.connection() as connection:
            for name in queue_names(self.topic):
                connection.channel().queue_delete(name)
            connection.channel().exchange_delete(f"{self.topic}_fanout")


def queue_names(topic: str) -> list[str]:
    keys = [topic, *(f"{topic}.h{n}" for n in (1, 2))]
    return [*keys, *(f"{key}+nested" for key in keys), f"{topic}+suspects"]


class Proxy:
    """A TCP proxy in a native thread, with the faults of a network."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._is_down = self._is_frozen = self._is_closed = False
        self._deaf: set[bool] = set()
        self._byte_every_s = 0.0
        self._cut_after: int | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Every connection ends now."""
        with self._lock:
            for end in list(self._peers):
                self._drop(end)

    def down(self, is_down: bool = True) -> None:
        """Connections end, new ones are refused."""
        self._is_down = is_down
        if is_down:
            self.cut()

    def freeze(self, is_frozen: bool = True) -> None:
        """Nothing passes, nothing ends: a black hole."""
        self._is_frozen = is_frozen

    def deafen(self, *to_broker: bool) -> None:
        """Nothing passes towards the broker (True), or from it (False), and nothing ends; () hears again."""
        self._deaf = set(to_broker)

    def trickle(self, byte_every_s: float) -> None:
        """One byte passes at a time; 0: all at once again."""
        self._byte_every_s = byte_every_s

    def reset(self) -> None:
        """Every connection ends with RST instead of FIN (SO_LINGER of 0, socket(7))."""
        with self._lock:
            for end in self._peers:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for end in list(self._peers):
                self._drop(end)

    def cut_in_mid_frame(self, after_bytes: int) -> None:
        """The next bytes from the broker pass, then the connection ends."""
        self._cut_after = after_bytes

    def close(self) -> None:
        self._is_closed = True
        self._thread.join(5)
        self.cut()
        self._listener.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._is_closed:
            for key, _ in self._selector.select(0.02):
                if key.fileobj is self._listener:
                    self._accept()
                elif not self._is_frozen and (not key.data) not in self._deaf:
                    with self._lock:
                        self._forward(key.fileobj)
            if self._is_frozen or self._deaf:
                threading.Event().wait(0.02)
            if self._byte_every_s:
                threading.Event().wait(self._byte_every_s)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        if self._is_down:
            near.close()
            return
        self.accepted += 1
        try:
            far = socket.create_connection(self.target)
        except ConnectionRefusedError:  # a broker that is not there yet
            near.close()
            return
        with self._lock:
            for end, other in ((near, far), (far, near)):
                self._peers[end] = other
                self._selector.register(end, selectors.EVENT_READ, data=end is far)

    def _forward(self, end: socket.socket) -> None:
        if end not in self._peers:
            return
        try:
            data = end.recv(1 if self._byte_every_s else 65536)
            if data and self._cut_after is not None and self._selector.get_key(end).data:
                data, self._cut_after = data[: self._cut_after], None
                self._peers[end].sendall(data)
                data = b""
            if data:
                self._peers[end].sendall(data)
                return
        except OSError:
            pass
        self._drop(end)

    def _drop(self, end: socket.socket) -> None:
        for each in (end, self._peers.get(end)):
            if each is not None and each in self._peers:
                del self._peers[each]
                self._selector.unregister(each)
                each.close()


class Victims:
    """Processes that run `victim.py`, and the log that they write."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.folder = bus.state_path
        self._processes: list[subprocess.Popen] = []

    def start(self, host: str = "h1", *flags: str) -> subprocess.Popen:
        """Returns when it consumes; or when it has died, before it could say so, of what it consumed."""
        process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("victim.py")),
                f"--broker={FLAGS.broker}",
                f"--state_path={self.folder}",
                f"--rpc_transport={FLAGS.rpc_transport}",
                *flags,
                self.bus.topic,
                host,
                str(self.folder),
            ],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SERVICES), "PYTHONWARNINGS": "ignore"},
        )
        self._processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n" or process.wait(PATIENCE_S) == -signal.SIGKILL
        return process

    def log(self) -> list[str]:
        """What ran, without the process ids."""
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.rpartition(" ")[0] for line in lines]

    def wait_log(self, count: int, word: str = "") -> None:
        """Wait until the log has `count` lines that begin with `word`."""
        until_s = time.monotonic() + PATIENCE_S
        while sum(line.startswith(word) for line in self.log()) < count:
            assert time.monotonic() < until_s, f"{count} lines {word} expected, got {self.log()}"
            green.sleep(0.01)

    def go(self) -> None:
        """Let `hold` return."""
        (self.folder / "go").touch()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


class Latch:
    """Lets a method wait until the test says go, and the test until the method has begun."""

    def __init__(self) -> None:
        self.begun = green.Queue()
        self.go = green.Event()

    def hold(self, value: Any = None) -> Any:
        self.begun.put(value)
        return self.go.wait(PATIENCE_S)

    def wait_begun(self, count: int = 1) -> list[Any]:
        return [self.begun.get(timeout=PATIENCE_S) for _ in range(count)]
