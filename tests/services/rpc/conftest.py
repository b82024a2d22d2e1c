"""A bus for each test: the fake broker, nova-broker and, where one answers, RabbitMQ, each with names of its own.

`NOVA_TEST_RPC_TRANSPORT=kombu` runs the same tests through kombu; `test_kombu.py` does that in a patched process.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import amqp
import pytest
from nova import context, green, rpc
from nova.flags import FLAGS
from nova.rpc import fake

RABBITMQ = os.environ.get("NOVA_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672/")
TRANSPORT = os.environ.get("NOVA_TEST_RPC_TRANSPORT", "auto")
PATIENCE_S = 10.0


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
        address = rpc.broker_address()
        host = f"{address.host}:{address.port}"
        connection = amqp.Connection(host, address.user, address.password, login_method="PLAIN")
        connection.connect()
        return connection

    def close(self) -> None:
        for server in self._servers:
            server.close()
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


def rabbitmq_url() -> str:
    """Skips, or fails where NOVA_TEST_REQUIRE asks for it, when RabbitMQ does not answer."""
    try:
        socket.create_connection(("127.0.0.1", 5672), 1).close()
    except OSError as error:
        reason = f"no RabbitMQ on 127.0.0.1:5672 ({error})"
        if "rabbitmq" in os.environ.get("NOVA_TEST_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    return RABBITMQ


BROKERS = ["fake", "rabbitmq"] if TRANSPORT == "auto" else ["rabbitmq"]


@pytest.fixture(params=BROKERS)
def bus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bus]:
    flags: dict[str, Any] = {"state_path": str(tmp_path), "rpc_transport": TRANSPORT}
    if request.param == "fake":
        flags["fake_rabbit"] = True
    else:
        flags["broker"] = rabbitmq_url()
    with FLAGS.override(**flags):
        bus = Bus(request.param, tmp_path)
        try:
            yield bus
        finally:
            bus.close()


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


@pytest.fixture
def latch() -> Latch:
    return Latch()
