"""The broker without sockets: time, memory, faults and whatever a client may throw at it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nova.broker import output, properties, protocol
from nova.broker.broker import Broker
from nova.broker.connection import Connection

from tests.services.broker.memory import Client, advance, make_broker
from tests.services.broker.transcript import BY_NAME, encode


def names(heard: list[tuple[str, dict]]) -> list[str]:
    return [name for name, _ in heard]


# Time.


def test_a_silent_client_is_sent_heartbeats_and_dropped_after_twice_the_interval() -> None:
    broker = make_broker()
    client = Client(broker, heartbeat=10)
    advance(broker, 11)
    assert names(client.hear()) == ["heartbeat"]
    client.feed(protocol.HEARTBEAT_FRAME)
    advance(broker, 15)
    assert client.connection in broker.connections
    client.hear()
    advance(broker, 10)
    assert client.connection not in broker.connections
    assert client.connection.is_abandoned


def test_a_client_that_is_sent_something_else_needs_no_heartbeat() -> None:
    broker = make_broker()
    client = Client(broker, heartbeat=10)
    for _ in range(4):
        advance(broker, 4)
        assert names(client.say("channel.flow", active=1)) == ["channel.flow-ok"]


def test_a_client_without_heartbeats_leaves_no_deadline() -> None:
    broker = make_broker()
    Client(broker)
    assert broker.next_deadline_s() is None


def test_a_login_that_is_not_finished_in_time_is_dropped() -> None:
    broker = make_broker(handshake_timeout_s=10)
    connection = Connection(broker)
    connection.feed(protocol.PROTOCOL_HEADER)
    advance(broker, 11)
    assert connection.is_abandoned
    assert not broker.connections


def test_a_client_that_does_not_answer_connection_close_is_dropped() -> None:
    broker = make_broker()
    client = Client(broker)
    client.connection.force_close("test")
    assert names(client.hear()) == ["connection.close"]
    assert not client.connection.is_finished
    advance(broker, 6)
    assert client.connection.is_abandoned


def test_a_consumer_that_keeps_a_message_too_long_loses_its_channel_and_the_message() -> None:
    broker = make_broker(consumer_timeout_s=60)
    client, other = Client(broker), Client(broker)
    client.say("queue.declare", queue="q")
    client.say("basic.consume", queue="q", consumer_tag="c")
    client.say("basic.publish", routing_key="q", body="kept")
    advance(broker, 40)
    client.say("basic.publish", routing_key="q", body="later")
    client.say("basic.ack", delivery_tag=1)
    advance(broker, 40)
    assert client.hear() == []
    advance(broker, 30)
    ((name, values),) = client.hear()
    assert (name, values["reply-code"]) == ("channel.close", 406)
    assert "delivery acknowledgement on channel 1 timed out. Timeout value used: 60000 ms" in values["reply-text"]
    assert other.say("basic.get", queue="q")[0][1]["body"] == "later"
    assert broker.next_deadline_s() is None


def test_a_queue_expires_only_when_it_is_unused() -> None:
    broker = make_broker()
    client = Client(broker)
    client.say("queue.declare", queue="q", arguments={"x-expires": 10_000})
    advance(broker, 9)
    client.say("basic.get", queue="q")
    advance(broker, 9)
    client.say("basic.consume", queue="q", consumer_tag="c")
    advance(broker, 100)
    assert "q" in broker.vhosts["/"].queues
    client.say("basic.cancel", consumer_tag="c")
    advance(broker, 9)
    assert "q" in broker.vhosts["/"].queues
    advance(broker, 2)
    assert "q" not in broker.vhosts["/"].queues
    assert broker.next_deadline_s() is None


def test_an_expiring_message_wakes_the_broker_once_and_only_at_its_time() -> None:
    broker = make_broker()
    client = Client(broker)
    client.say("queue.declare", queue="dead")
    client.say(
        "queue.declare", queue="q", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    )
    client.say("basic.publish", routing_key="q", body="x", header={"expiration": "5000"})
    assert broker.next_deadline_s() == broker.now_s + 5
    advance(broker, 5)
    assert broker.next_deadline_s() is None
    assert (
        client.say("basic.get", queue="dead")[0][1]["header"]["headers"]["x-death"][0]["original-expiration"]
        == "5000"
    )


# Memory.


def test_publishers_are_held_above_the_memory_limit_and_told_so() -> None:
    broker = make_broker(memory_limit_bytes=100_000)
    publisher, consumer, bystander = Client(broker), Client(broker), Client(broker)
    consumer.say("queue.declare", queue="q")
    heard: list[tuple[str, dict]] = []
    for _ in range(12):
        heard += publisher.say("basic.publish", routing_key="q", body="x" * 10_000)
    assert ("connection.blocked", {"reason": "low on memory"}) in heard
    assert publisher.connection.is_paused
    assert not bystander.connection.is_paused
    late = Client(broker)
    assert "connection.blocked" in names(late.say("basic.publish", routing_key="q", body="x"))
    assert late.connection.is_paused
    while consumer.say("basic.get", queue="q", no_ack=1)[0][0] == "basic.get-ok":
        if not publisher.connection.is_paused:
            break
    assert broker.memory_bytes < 0.8 * 100_000
    assert names(publisher.hear()) == ["connection.unblocked"]
    assert broker.blocked_because is None


def test_a_publisher_that_acknowledges_is_told_and_read_because_that_makes_room() -> None:
    broker = make_broker(memory_limit_bytes=100_000)
    client = Client(broker)
    client.say("queue.declare", queue="q")
    client.say("basic.publish", routing_key="q", body="x" * 70_000)
    client.say("basic.qos", prefetch_count=1)
    client.say("basic.consume", queue="q")
    heard = client.say("basic.publish", routing_key="q", body="x" * 70_000)
    assert ("connection.blocked", {"reason": "low on memory"}) in heard
    assert not client.connection.is_paused
    assert "connection.unblocked" in names(client.say("basic.ack", delivery_tag=1))


def test_a_publisher_that_acknowledges_is_held_where_it_publishes_without_end() -> None:
    broker = make_broker(memory_limit_bytes=100_000)
    client, other = Client(broker), Client(broker)
    client.say("queue.declare", queue="q")
    client.say("basic.qos", prefetch_count=1)
    client.say("basic.consume", queue="q")
    for _ in range(30):
        client.say("basic.publish", routing_key="q", body="x" * 10_000)
        if client.connection.is_paused:
            break
    assert 200_000 < broker.memory_bytes < 225_000
    other.say("queue.purge", queue="q")
    assert not client.connection.is_paused


def test_a_client_that_does_not_understand_it_is_held_without_being_told() -> None:
    broker = make_broker(memory_limit_bytes=1000)
    client = Client(broker, capabilities={})
    client.say("queue.declare", queue="q")
    assert client.say("basic.publish", routing_key="q", body="x" * 2000) == []
    assert client.connection.is_paused


def test_a_held_publisher_is_not_dropped_for_its_silence() -> None:
    broker = make_broker(memory_limit_bytes=1000)
    client = Client(broker, heartbeat=10)
    client.say("queue.declare", queue="q")
    client.say("basic.publish", routing_key="q", body="x" * 2000)
    advance(broker, 100)
    assert client.connection in broker.connections


def test_memory_is_accounted_for_to_the_last_byte() -> None:
    broker = make_broker()
    client = Client(broker)
    client.say("queue.declare", queue="dead")
    arguments = {"x-max-length": 3, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    client.say("queue.declare", queue="q", arguments=arguments)
    client.say(
        "queue.declare", queue="r", arguments={"x-max-length": 1, "x-overflow": "reject-publish-dlx", **arguments}
    )
    for number in range(9):
        client.say("basic.publish", routing_key="qr"[number % 2], body="x" * number)
    client.say("basic.get", queue="q")
    client.say("basic.nack", delivery_tag=1, requeue=1)
    client.say("basic.get", queue="q")
    client.say("basic.reject", delivery_tag=2)
    client.say("basic.get", queue="dead")
    assert broker.memory_bytes > 0
    client.say("queue.purge", queue="dead")
    client.say("queue.delete", queue="q")
    client.say("queue.delete", queue="r")
    client.say("queue.delete", queue="dead")
    client.say("basic.ack", delivery_tag=3)
    assert broker.memory_bytes == 0


def test_a_client_that_does_not_read_gets_no_more_than_its_share_and_then_goes_on() -> None:
    broker = make_broker()
    reader, publisher = Client(broker), Client(broker)
    reader.say("queue.declare", queue="q")
    reader.say("basic.consume", queue="q", consumer_tag="c", no_ack=1)
    for number in range(400):
        publisher.say("basic.publish", routing_key="q", body=f"{number:10000}")
    queue = broker.vhosts["/"].queues["q"]
    assert reader.connection.output.is_congested
    held = queue.ready
    assert 400 * 10_000 - held * 10_000 < 2 * output.CONGESTED_BYTES
    got: list[int] = []
    while len(got) < 400:
        bodies = reader.bodies()
        assert bodies, "the reader goes on once it has read"
        got += map(int, bodies)
        broker.end_turn()
    assert got == list(range(400))


def test_a_message_over_the_limit_is_refused_before_it_has_arrived() -> None:
    broker = make_broker(message_limit_bytes=1000)
    client = Client(broker)
    client.feed(protocol.frame(protocol.METHOD, 1, encode(BY_NAME["basic.publish"], {"routing-key": "q"})))
    client.feed(protocol.frame(protocol.HEADER, 1, properties.encode(1001, {})))
    ((name, values),) = client.hear()
    assert (name, values["reply-code"]) == ("channel.close", 406)
    assert "message size 1001 is larger than configured max size 1000" in values["reply-text"]


def test_strict_refuses_a_queue_neither_durable_nor_exclusive() -> None:
    broker = make_broker(is_strict=True)
    client = Client(broker)
    for accepted in ({"durable": 1}, {"exclusive": 1}, {"durable": 1, "exclusive": 1}):
        assert names(client.say("queue.declare", queue=str(accepted), **accepted)) == ["queue.declare-ok"]
    ((name, values),) = client.say("queue.declare", queue="q")
    assert (name, values["reply-code"]) == ("channel.close", 406)
    assert "RabbitMQ refuses from 4.3 on" in values["reply-text"]


# Order.


def test_messages_return_to_their_places_when_two_consumers_die_together() -> None:
    broker = make_broker()
    clients = [Client(broker) for _ in range(3)]
    clients[0].say("queue.declare", queue="q")
    for client in clients[:2]:
        client.say("basic.consume", queue="q", consumer_tag="c")
    for number in range(20):
        clients[2].say("basic.publish", routing_key="q", body=str(number))
    for client in clients[:2]:
        client.connection.lost()
    got = [clients[2].say("basic.get", queue="q", no_ack=1)[0][1] for _ in range(20)]
    assert [int(values["body"]) for values in got] == list(range(20))
    assert all(values["redelivered"] for values in got)


def test_many_messages_return_in_reasonable_time() -> None:
    broker = make_broker()
    client = Client(broker)
    client.say("queue.declare", queue="q")
    count = 20_000
    body = protocol.content(
        1, encode(BY_NAME["basic.publish"], {"routing-key": "q"}), properties.encode(0, {}), b"", 4096
    )
    client.feed(body * count)
    client.feed(protocol.frame(protocol.METHOD, 1, encode(BY_NAME["basic.get"], {"queue": "q"})) * count)
    client.take()
    for tag in range(1, count + 1):
        client.connection.channels[1].reject(tag, False, True)
    # In a line that is walked for each message this is 2 * 10^8 steps, and the test's time limit finds it.
    assert broker.vhosts["/"].queues["q"].ready == count


def test_a_long_chain_of_dead_letter_queues_does_not_nest() -> None:
    broker = make_broker()
    client = Client(broker)
    for number in range(300):
        arguments = {
            "x-message-ttl": 0,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": f"q{number + 1}",
        }
        client.say("queue.declare", queue=f"q{number}", arguments=arguments)
    client.say("queue.declare", queue="q300")
    client.say("basic.publish", routing_key="q0", body="x")
    assert broker.vhosts["/"].queues["q300"].ready == 1


@pytest.mark.parametrize(
    "forged",
    [
        "text",
        [1, "two"],
        [{"queue": "q", "reason": "rejected", "count": "many"}],
        [{"queue": "q", "reason": "rejected", "count": -5}],
        [{"queue": "q", "reason": "rejected"}],
        [{"queue": 5, "reason": []}],
        {"queue": "q"},
    ],
)
def test_a_forged_history_of_deaths_does_no_harm(forged: Any) -> None:
    broker = make_broker()
    client = Client(broker)
    client.say("queue.declare", queue="dead")
    client.say(
        "queue.declare", queue="q", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    )
    client.say("basic.publish", routing_key="q", body="x", header={"headers": {"x-death": forged}})
    client.say("basic.get", queue="q")
    client.say("basic.reject", delivery_tag=1)
    deaths = client.say("basic.get", queue="dead")[0][1]["header"]["headers"]["x-death"]
    assert (deaths[0]["queue"], deaths[0]["reason"], deaths[0]["count"]) == ("q", "rejected", 1)


# Whatever a client may throw at it.


def conversation() -> bytes:
    """Every kind of frame a good client sends, after its login."""
    said = [
        ("exchange.declare", {"exchange": "x", "type": "topic"}),
        ("queue.declare", {"queue": "q", "arguments": {"x-max-priority": 3, "x-message-ttl": 1000}}),
        ("queue.bind", {"queue": "q", "exchange": "x", "routing-key": "a.#"}),
        ("basic.qos", {"prefetch-count": 2}),
        ("confirm.select", {}),
        ("basic.consume", {"queue": "q", "consumer-tag": "c"}),
        ("basic.ack", {"delivery-tag": 1}),
        ("basic.nack", {"delivery-tag": 2, "requeue": 1}),
        ("basic.cancel", {"consumer-tag": "c"}),
        ("basic.get", {"queue": "q"}),
        ("basic.recover", {"requeue": 1}),
        ("queue.purge", {"queue": "q"}),
        ("queue.delete", {"queue": "q"}),
        ("channel.close", {}),
    ]
    frames = [protocol.frame(protocol.METHOD, 1, encode(BY_NAME[name], dict(given))) for name, given in said]
    header = properties.encode(3, {"delivery_mode": 2, "priority": 1, "headers": {"a": [1, {"b": None}]}})
    publish = encode(BY_NAME["basic.publish"], {"exchange": "x", "routing-key": "a.b", "mandatory": 1})
    frames.insert(6, protocol.content(1, publish, header, b"abc", 4096) * 3)
    return b"".join(frames)


SAID = conversation()


def works(broker: Broker) -> bool:
    client = Client(broker)
    client.say("queue.declare", queue="fine", exclusive=1)
    client.say("basic.publish", routing_key="fine", body="fine")
    return client.say("basic.get", queue="fine")[0][1]["body"] == "fine"


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_a_garbled_conversation_ends_at_most_its_own_connection(seed: int, changes: int) -> None:
    broker = make_broker()
    client = Client(broker)
    chance = random.Random(seed)
    data = bytearray(SAID)
    for _ in range(changes):
        data[chance.randrange(len(data))] = chance.choice((0, 1, 0xCE, 0xFF, chance.randrange(256)))
    position = 0
    while position < len(data):
        size = chance.randrange(1, 400)
        client.feed(bytes(data[position : position + size]))
        position += size
    client.take()
    advance(broker, 3)
    client.connection.lost()
    assert works(broker)
    assert not any(queue.owner is client.connection for queue in broker.vhosts["/"].queues.values())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_garbage_from_the_first_byte_ends_at_most_its_own_connection(data: bytes) -> None:
    broker = make_broker()
    for start in (b"", protocol.PROTOCOL_HEADER):
        connection = Connection(broker)
        connection.feed(start + data)
        broker.end_turn()
        connection.lost()
    assert works(broker)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(BY_NAME)), st.binary(max_size=60))
def test_a_method_with_garbage_for_arguments_is_answered(name: str, arguments: bytes) -> None:
    broker = make_broker()
    client = Client(broker)
    client.feed(protocol.method(1, BY_NAME[name].number, arguments))
    client.feed(protocol.method(0, BY_NAME[name].number, arguments))
    client.take()
    client.connection.lost()
    assert works(broker)
