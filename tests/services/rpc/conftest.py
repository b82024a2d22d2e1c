"""A bus for each test: the fake broker, nova-broker and, where one answers, RabbitMQ, each with names of its own.

`NOVA_TEST_RPC_TRANSPORT=kombu` runs the same tests through kombu; `test_kombu.py` does that in a patched process.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nova import rpc
from nova.flags import FLAGS
from nova.rpc.options import broker_address

from tests.ports import port_for_a_restart
from tests.services.broker.conftest import BrokerProcess
from tests.services.rpc.running import Bus, Latch, Proxy, Victims

RABBITMQ = "amqp://guest:guest@127.0.0.1:5672/"
TRANSPORT = os.environ.get("NOVA_TEST_RPC_TRANSPORT", "auto")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "everywhere: kills processes on RabbitMQ as well, where one answers")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Calls are tested on every broker; what processes and connections do on nova-broker, to save time."""
    names = set(metafunc.fixturenames)
    if "bus" not in names:
        return
    brokers = ["fake", "nova-broker", "rabbitmq"] if TRANSPORT == "auto" else ["nova-broker"]
    if "fake_bus" in names:
        brokers = ["fake"]
    elif names & {"proxy", "own_broker", "own_broker_with"}:
        brokers = ["nova-broker"]
    elif "victims" in names:
        is_everywhere = metafunc.definition.get_closest_marker("everywhere") is not None
        brokers = [name for name in brokers if name == "nova-broker" or (is_everywhere and name != "fake")]
    metafunc.parametrize("bus", brokers, indirect=True)


def require_rabbitmq(port: int = 5672) -> None:
    """Skips, or fails where NOVA_TEST_REQUIRE asks for it, when RabbitMQ does not answer."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError as error:
        reason = f"no RabbitMQ on 127.0.0.1:{port} ({error})"
        if "rabbitmq" in os.environ.get("NOVA_TEST_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def nova_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """One for all tests; each has names of its own on it."""
    broker = BrokerProcess(tmp_path_factory.mktemp("broker"))
    yield broker
    broker.terminate()


@pytest.fixture
def bus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bus]:
    flags: dict[str, Any] = {"state_path": str(tmp_path), "rpc_transport": TRANSPORT}
    if request.param == "fake":
        flags["fake_rabbit"] = True
    elif request.param == "rabbitmq":
        require_rabbitmq()
        flags["broker"] = RABBITMQ
    else:
        flags["broker"] = request.getfixturevalue("nova_broker").url
    with FLAGS.override(**flags):
        bus = Bus(request.param, tmp_path)
        try:
            yield bus
        finally:
            bus.close()


@pytest.fixture
def fake_bus(bus: Bus) -> Bus:
    """The fake broker alone, for its faults."""
    return bus


class OwnBroker:
    """A nova-broker that may be killed, and started again at the same port with what it had on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.process = BrokerProcess(folder, port=port_for_a_restart())

    def kill(self) -> None:
        if self.process.process.returncode is None:
            self.process.kill()

    def start(self) -> None:
        self.process = BrokerProcess(self._folder, port=self.process.port)


@pytest.fixture
def own_broker(bus: Bus, tmp_path: Path) -> Iterator[OwnBroker]:
    """A nova-broker of the test's own."""
    own = OwnBroker(tmp_path / "own")
    try:
        with FLAGS.override(broker=own.process.url):
            yield own
            bus.end_servers()
            rpc.cleanup()
    finally:
        own.kill()


@pytest.fixture
def own_broker_with(bus: Bus, tmp_path: Path) -> Callable[..., contextlib.AbstractContextManager[None]]:
    """`with own_broker_with("--flag"):` calls go over a nova-broker with these flags."""

    @contextlib.contextmanager
    def use(*flags: str) -> Iterator[None]:
        process = BrokerProcess(tmp_path / "own", *flags)
        try:
            with FLAGS.override(broker=process.url):
                yield
                bus.end_servers()
                rpc.cleanup()
        finally:
            process.kill()

    return use


@pytest.fixture
def proxy(bus: Bus) -> Iterator[Proxy]:
    """Between this test and the broker, for `bus` alone."""
    address = broker_address()
    proxy = Proxy((address.host, address.port))
    url = f"amqp://{address.user}:{address.password}@127.0.0.1:{proxy.port}/"
    try:
        with FLAGS.override(broker=url):
            yield proxy
            bus.end_servers()
            rpc.cleanup()
    finally:
        proxy.close()


@pytest.fixture
def victims(bus: Bus) -> Iterator[Victims]:
    victims = Victims(bus)
    try:
        yield victims
    finally:
        victims.close()


@pytest.fixture
def latch() -> Latch:
    return Latch()
