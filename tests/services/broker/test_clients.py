"""Clients that were not written for nova-broker, unmodified: a whole session of each, and what each does when refused.

kombu and py-amqp are in `test_process` and in most other tests here.
"""

from __future__ import annotations

from typing import Any

import amqp
import pika
import pika.exceptions
import pytest

DEADLINE_S = 15.0


@pytest.fixture
def pika_connection(shared_broker: Any) -> Any:
    login = pika.PlainCredentials("nova", shared_broker.password)
    connection = pika.BlockingConnection(
        pika.ConnectionParameters(
            "127.0.0.1", shared_broker.port, "/", login, heartbeat=30, socket_timeout=DEADLINE_S
        )
    )
    yield connection
    if connection.is_open:
        connection.close()


def test_pika_declares_publishes_consumes_and_acknowledges(pika_connection: Any) -> None:
    channel = pika_connection.channel()
    channel.exchange_declare("pika-topic", "topic", durable=True)
    channel.queue_declare("pika-work", durable=True, arguments={"x-expires": 60000, "x-max-priority": 3})
    channel.queue_bind("pika-work", "pika-topic", "work.#")
    channel.confirm_delivery()
    for number in range(10):
        properties = pika.BasicProperties(delivery_mode=2, message_id=str(number), headers={"n": number})
        channel.basic_publish("pika-topic", f"work.{number}", b"body", properties, mandatory=True)
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish("pika-topic", "nowhere", b"lost", mandatory=True)
    channel.basic_qos(prefetch_count=3)
    got = []
    for method, properties, body in channel.consume("pika-work", inactivity_timeout=DEADLINE_S):
        assert method is not None, "nothing came"
        got.append((method.redelivered, properties.headers["n"], body))
        if len(got) == 1:
            channel.basic_nack(method.delivery_tag, requeue=True)
            continue
        channel.basic_ack(method.delivery_tag)
        if len(got) == 11:
            break
    assert channel.cancel() == 0
    assert sorted(number for _, number, _ in got) == [0, *range(10)]
    assert [number for redelivered, number, _ in got if redelivered] == [0]
    assert channel.queue_purge("pika-work").method.message_count == 0
    channel.queue_delete("pika-work")
    channel.exchange_delete("pika-topic")


def test_pika_calls_over_direct_reply_to(pika_connection: Any) -> None:
    channel = pika_connection.channel()
    channel.queue_declare("pika-rpc", exclusive=True)
    answers: list[bytes] = []

    def answer(served: Any, method: Any, properties: Any, body: bytes) -> None:
        served.basic_publish("", properties.reply_to, body.upper())
        served.basic_ack(method.delivery_tag)

    channel.basic_consume("pika-rpc", answer)
    channel.basic_consume("amq.rabbitmq.reply-to", lambda *heard: answers.append(heard[3]), auto_ack=True)
    channel.basic_publish("", "pika-rpc", b"ask", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    while not answers:
        pika_connection.process_data_events(time_limit=DEADLINE_S)
    assert answers == [b"ASK"]


def test_pika_is_told_why_it_was_refused_and_goes_on(pika_connection: Any, shared_broker: Any) -> None:
    channel = pika_connection.channel()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        channel.queue_declare("pika-none", passive=True)
    assert refused.value.reply_code == 404
    channel = pika_connection.channel()
    channel.queue_declare("pika-cancelled", exclusive=True)
    cancelled: list[Any] = []
    channel.add_on_cancel_callback(cancelled.append)
    channel.basic_consume("pika-cancelled", lambda *heard: None)
    channel.queue_delete("pika-cancelled")
    while not cancelled:
        pika_connection.process_data_events(time_limit=DEADLINE_S)
    wrong = pika.PlainCredentials("nova", "wrong")
    parameters = pika.ConnectionParameters("127.0.0.1", shared_broker.port, "/", wrong)
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        pika.BlockingConnection(parameters)


def test_virtual_hosts_have_nothing_in_common(shared_broker: Any) -> None:
    one, other = shared_broker.connect(), shared_broker.connect(virtual_host="other")
    here, there = one.channel(), other.channel()
    here.queue_declare("same", exclusive=True)
    there.queue_declare("same", exclusive=True, arguments={"x-max-length": 5})
    here.basic_publish(amqp.Message("mine"), "", "same")
    assert there.basic_get("same") is None
    assert here.basic_get("same").body == "mine"
    there.queue_declare("only-there", exclusive=True)
    with pytest.raises(amqp.NotFound, match="no queue 'only-there' in vhost '/'"):
        here.queue_declare("only-there", passive=True)
    one.close()
    other.close()


def test_py_amqp_logs_in_with_amqplain(shared_broker: Any) -> None:
    connection = shared_broker.connect(login_method="AMQPLAIN")
    assert connection.channel().queue_declare("", exclusive=True).queue.startswith("amq.gen-")
    connection.close()
    with pytest.raises(amqp.AccessRefused):
        amqp.Connection(f"127.0.0.1:{shared_broker.port}", "nova", "wrong", login_method="AMQPLAIN").connect()
