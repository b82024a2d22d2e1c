"""nova-broker among clients that behave badly: slow ones, too many, none that speaks AMQP; and another engine."""

from __future__ import annotations

import os
import resource
import select
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import amqp
import pytest
from nova.broker import engine

Start = Callable[..., Any]
DEADLINE_S = 15.0


def is_closed(sock: socket.socket) -> bool:
    """Waits until the broker has hung up."""
    sock.settimeout(DEADLINE_S)
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def works(broker: Any) -> bool:
    connection = broker.connect()
    channel = connection.channel()
    channel.queue_declare("fine", exclusive=True)
    channel.basic_publish(amqp.Message("fine"), "", "fine")
    body = channel.basic_get("fine", no_ack=True).body
    connection.close()
    return bool(body == "fine")


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", os.urandom(65536), b"AMQP\0\0\x09\x01" + b"\xff" * 5000]
)
def test_a_client_that_speaks_something_else_is_hung_up_on(data: bytes, shared_broker: Any) -> None:
    with socket.create_connection(("127.0.0.1", shared_broker.port)) as sock:
        sock.sendall(data)
        assert is_closed(sock)
    assert works(shared_broker)


def test_a_reader_that_stops_costs_little_and_hinders_nobody(start_broker: Start) -> None:
    broker = start_broker()
    slow, quick = broker.connect(), broker.connect()
    channel, other = slow.channel(), quick.channel()
    channel.queue_declare("flood", durable=True, auto_delete=False)
    channel.basic_consume("flood", no_ack=True)
    message = amqp.Message("x" * 100_000, delivery_mode=1)
    for _ in range(400):
        other.basic_publish(message, "", "flood")
    other.queue_declare("fine", exclusive=True)
    other.basic_publish(amqp.Message("fine"), "", "fine")
    assert other.basic_get("fine", no_ack=True).body == "fine"
    # The kernel's buffers hold some; what the broker has sent beyond them is bounded.
    assert other.queue_declare("flood", passive=True).message_count > 200
    got: list[int] = []
    channel.callbacks.clear()
    channel.callbacks[next(iter(channel.no_ack_consumers))] = lambda message: got.append(len(message.body))
    while len(got) < 400:
        slow.drain_events(timeout=DEADLINE_S)
    assert set(got) == {100_000}


def test_more_clients_than_descriptors_are_refused_and_the_broker_goes_on(start_broker: Start) -> None:
    broker = start_broker()
    resource.prlimit(broker.process.pid, resource.RLIMIT_NOFILE, (40, 40))
    crowd = [socket.create_connection(("127.0.0.1", broker.port)) for _ in range(60)]
    # The last ones are accepted and hung up on by the spare descriptor; nobody waits in vain.
    assert is_closed(crowd[-1])
    for sock in crowd:
        sock.close()
    for _ in range(100):
        try:
            assert works(broker)
            break
        except (OSError, amqp.AMQPError):
            select.select([], [], [], 0.05)
    else:
        pytest.fail("the broker did not recover")


def test_more_connections_than_the_soft_limit_of_descriptors_are_served(start_broker: Start) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    broker = start_broker()  # inherits the limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2048), hard), hard))
    crowd = []
    for _ in range(1000):
        crowd.append(socket.create_connection(("127.0.0.1", broker.port)))
        crowd[-1].sendall(b"AMQP\0\0\x09\x01")
    for sock in crowd:
        sock.settimeout(DEADLINE_S)
        assert sock.recv(1) == b"\1"
    assert works(broker)
    status = Path(f"/proc/{broker.process.pid}/status").read_text()
    resident_kb = int(status.split("VmRSS:")[1].split()[0])
    assert resident_kb < 60_000
    for sock in crowd:
        sock.close()
    assert works(broker)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_rabbitmq_engine_is_the_same_to_its_clients(start_broker: Start, tmp_path: Path) -> None:
    if not any(map(shutil.which, engine.SERVERS)):
        if "rabbitmq" in os.environ.get("NOVA_TEST_REQUIRE", ""):
            pytest.fail("rabbitmq-server is not installed")
        pytest.skip("rabbitmq-server is not installed")
    broker = start_broker("--engine=rabbitmq", deadline_s=90)
    connection = broker.connect()
    assert connection.server_properties["product"] == "RabbitMQ"
    connection.close()
    home = str(tmp_path / "state")
    assert broker.terminate() == 0
    left = [path for path in Path("/proc").glob("[0-9]*") if f"HOME={home}" in _environ(path)]
    assert left == []


def _environ(process: Path) -> str:
    try:
        return (process / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_an_engine_that_does_not_exist_is_a_permanent_failure() -> None:
    from nova.broker import main

    assert main.main(["--engine=steam"], environ={}) == 100
