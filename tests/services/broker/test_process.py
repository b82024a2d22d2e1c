"""nova-broker as a process: what survives its death and its clients' deaths, how it starts and how it ends."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import amqp
import kombu
import pytest

Start = Callable[..., Any]
DrainUntil = Callable[..., None]


def publish(channel: amqp.Channel, queue: str, *bodies: str, **properties: Any) -> None:
    for body in bodies:
        channel.basic_publish(amqp.Message(body, **properties), "", queue)


def test_a_kombu_consumer_gets_what_a_kombu_producer_sent(shared_broker: Any) -> None:
    exchange = kombu.Exchange("kombu-round-trip", "topic", durable=True)
    queue = kombu.Queue("kombu-queue", exchange, "compute.*", durable=True, expires=60)
    got: list[Any] = []
    with kombu.Connection(shared_broker.url) as connection:
        with connection.Consumer(queue, callbacks=[lambda body, message: (got.append(body), message.ack())]):
            with connection.Producer() as producer:
                producer.publish({"method": "run"}, exchange=exchange, routing_key="compute.host1")
                producer.publish({"method": "lost"}, exchange=exchange, routing_key="network.host1")
                producer.publish({"method": "stop"}, exchange=exchange, routing_key="compute.host2")
            while len(got) < 2:
                connection.drain_events(timeout=10)
    assert got == [{"method": "run"}, {"method": "stop"}]


def test_a_request_is_answered_over_direct_reply_to(shared_broker: Any, drain_until: DrainUntil) -> None:
    server, client = shared_broker.connect(), shared_broker.connect()
    serving, asking = server.channel(), client.channel()
    serving.queue_declare("echo", durable=True, auto_delete=False, arguments={"x-expires": 60000})

    def answer(message: amqp.Message) -> None:
        properties = {"correlation_id": message.correlation_id}
        serving.basic_publish(amqp.Message(message.body.upper(), **properties), "", message.reply_to)

    serving.basic_consume("echo", no_ack=True, callback=answer)
    answers: list[amqp.Message] = []
    asking.basic_consume("amq.rabbitmq.reply-to", no_ack=True, callback=answers.append)
    publish(asking, "echo", "hello", reply_to="amq.rabbitmq.reply-to", correlation_id="7")
    server.drain_events(timeout=10)
    drain_until(client, lambda: answers)
    assert (answers[0].body, answers[0].correlation_id) == ("HELLO", "7")
    server.close()
    client.close()


def test_persistent_messages_of_durable_queues_survive_kill_9(start_broker: Start) -> None:
    broker = start_broker()
    connection = broker.connect(confirm_publish=True)
    channel = connection.channel()
    channel.exchange_declare("nova", "topic", durable=True, auto_delete=False)
    channel.queue_declare("compute", durable=True, auto_delete=False, arguments={"x-max-priority": 3})
    channel.queue_bind("compute", "nova", "compute.#")
    for number in range(50):
        message = amqp.Message(f"kept {number}", delivery_mode=2, priority=number % 2)
        channel.basic_publish(message, "nova", "compute.a")
        channel.basic_publish(amqp.Message("transient", delivery_mode=1), "nova", "compute.a")
    first = channel.basic_get("compute")
    second = channel.basic_get("compute")
    assert (first.body, second.body) == ("kept 1", "kept 3")
    channel.basic_ack(first.delivery_tag)
    channel.basic_qos(0, 1, False)  # answered: the ack before it has been read
    broker.kill()

    again = start_broker()
    channel = again.connect().channel()
    assert channel.queue_declare("compute", passive=True).message_count == 49
    channel.exchange_declare("nova", "topic", durable=True, auto_delete=False)
    got = [channel.basic_get("compute", no_ack=True) for _ in range(49)]
    bodies = [f"kept {n}" for n in range(3, 50, 2)] + [f"kept {n}" for n in range(0, 50, 2)]
    assert [message.body for message in got] == bodies
    assert [message.delivery_info["redelivered"] for message in got] == [True] + 48 * [False]
    channel.basic_publish(amqp.Message("new"), "nova", "compute.b")
    assert channel.basic_get("compute").body == "new"


def test_what_a_killed_consumer_held_is_redelivered_in_order(shared_broker: Any, drain_until: DrainUntil) -> None:
    holder, other = shared_broker.connect(), shared_broker.connect()
    held: list[amqp.Message] = []
    channel = holder.channel()
    channel.queue_declare("held", durable=True, auto_delete=False, arguments={"x-expires": 60000})
    channel.basic_qos(0, 10, False)
    publish(channel, "held", *(str(number) for number in range(20)))
    channel.basic_consume("held", callback=held.append)
    drain_until(holder, lambda: len(held) == 10)
    got: list[amqp.Message] = []
    second = other.channel()
    holder.sock.close()  # as the kernel does for a killed process
    second.basic_consume("held", no_ack=True, callback=got.append)
    drain_until(other, lambda: len(got) == 20)
    assert sorted(int(message.body) for message in got) == list(range(20))
    assert {message.body for message in got if message.delivery_info["redelivered"]} == {
        str(n) for n in range(10)
    }
    other.close()


def test_the_password_is_made_for_the_owner_alone_and_is_asked_for(start_broker: Start) -> None:
    broker = start_broker()
    path = broker.folder / "broker" / "password"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(broker.password) >= 32
    for user, password in (("guest", "guest"), ("nova", "wrong"), ("nobody", broker.password)):
        with pytest.raises(amqp.AccessRefused, match="Login was refused"):
            amqp.Connection(f"127.0.0.1:{broker.port}", user, password).connect()
    broker.connect().close()


def test_term_tells_the_clients_and_exits_with_0(start_broker: Start) -> None:
    broker = start_broker()
    connection = broker.connect()
    broker.process.terminate()
    with pytest.raises(amqp.ConnectionForced, match="CONNECTION_FORCED"):
        connection.drain_events(timeout=10)
    assert broker.terminate() == 0


def test_a_second_broker_on_the_same_journal_is_refused(start_broker: Start) -> None:
    broker = start_broker()
    with pytest.raises(pytest.fail.Exception, match="another nova-broker uses it"):
        start_broker(folder=broker.folder)


def test_a_bad_flag_is_a_permanent_failure(tmp_path: Path) -> None:
    from nova.broker import main

    assert main.main(["--port=many"], environ={}) == 100
    assert main.main(["--help"], environ={}) == 0


def test_the_environment_sets_flags_below_the_command_line(tmp_path: Path) -> None:
    from nova.broker import main

    environ = {"NOVA_PORT": "7", "NOVA_STATE_PATH": "/there", "NOVA_STRICT": "no", "NOVA_ALLOW_GUEST": "1"}
    options = main.parser(environ).parse_args(["--port=8"])
    assert (options.port, options.state_path, options.strict, options.allow_guest) == (8, "/there", False, True)


def test_an_idle_broker_does_not_wake_up(start_broker: Start) -> None:
    broker = start_broker()
    connection = broker.connect()
    channel = connection.channel()
    channel.queue_declare("idle", exclusive=True)
    channel.basic_consume("idle")
    status = Path(f"/proc/{broker.process.pid}/status")

    def switches() -> int:
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["voluntary_ctxt_switches"])

    before = switches()
    # Nothing to wait for but time itself: any tick of a broker that polls would fall into it.
    connection.sock.settimeout(1.0)
    with pytest.raises(TimeoutError):
        connection.sock.recv(1)
    assert switches() - before <= 1
    connection.close()
