"""Which exchanges, queues and consumers a service and a caller need at the broker, as plain values.

Pure. Every shared queue is durable: RabbitMQ refuses transient shared ones from 4.3 on. What belongs to one
process is exclusive and goes with its connection. A service has five kinds of consumers:

    shared    nova -> `topic`            any process of the service may take it host      nova -> `topic.host`
    this host only; the queue expires when the host does not come back nested    ... `+nested`
    calls made from inside a served call; no prefetch limit, so that they never
                                         wait behind the very calls that wait for them; those who wait are the
                                         bound
    suspects  ... `topic+suspects`       messages whose process died twice: one at a time, see `redelivery`
    fanout    `topic_fanout`             every process, taken without acknowledgement
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nova.rpc.errors import TopicTooLong

DEAD_LETTERS = "nova.dead"
DEAD_LETTERS_KEPT = 10_000
LONGEST_NAME = 255  # bytes: AMQP 0-9-1 sends names as short strings
DIRECT_REPLY = "amq.rabbitmq.reply-to"

SHARED, HOST, NESTED, HOST_NESTED, SUSPECTS, FANOUT, REPLIES = (
    "shared",
    "host",
    "nested",
    "host_nested",
    "suspects",
    "fanout",
    "replies",
)
LANES = frozenset((NESTED, HOST_NESTED))
DRAINED = frozenset((SHARED, HOST, SUSPECTS, FANOUT))  # what a service that stops consumes no longer


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    kind: str
    durable: bool = True


@dataclass(frozen=True, slots=True)
class Queue:
    """`bindings` are (exchange, routing key) pairs."""

    name: str
    durable: bool = True
    exclusive: bool = False
    bindings: tuple[tuple[str, str], ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Consumer:
    """`prefetch` 0 is no limit."""

    tag: str
    queue: str
    prefetch: int = 0
    no_ack: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a link declares, and then consumes, on each of its connections."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    consumers: tuple[Consumer, ...] = ()

    def only(self, tags: frozenset[str]) -> Plan:
        """The same with these consumers alone, and without exclusive queues that none of them reads."""
        kept = tuple(consumer for consumer in self.consumers if consumer.tag in tags)
        names = {consumer.queue for consumer in kept}
        queues = tuple(queue for queue in self.queues if not queue.exclusive or queue.name in names)
        return Plan(self.exchanges, queues, kept)


def checked(name: str) -> str:
    """`name` of a queue or an exchange, or a routing key. Raises `TopicTooLong`."""
    size = len(name.encode())
    if size > LONGEST_NAME:
        raise TopicTooLong(
            f"topic {name[:40]}...: it makes a name of {size} bytes at the broker, at most {LONGEST_NAME} are possible"
        )
    return name


def server_key(topic: str, host: str | None = None) -> str:
    return f"{topic}.{host}" if host else topic


def nested_key(key: str) -> str:
    return f"{key}+nested"


def suspects_key(topic: str) -> str:
    return f"{topic}+suspects"


def fanout_exchange(topic: str) -> str:
    return f"{topic}_fanout"


def dead_letter_queue() -> Queue:
    """Bounded: the oldest go first."""
    return Queue(DEAD_LETTERS, arguments={"x-max-length": DEAD_LETTERS_KEPT})


def client_plan(exchange: str) -> Plan:
    """What every caller needs: the exchange to publish to and the consumer of its replies."""
    return Plan((Exchange(exchange, "topic"),), (), (Consumer(REPLIES, DIRECT_REPLY, no_ack=True),))


def server_plan(
    exchange: str, topic: str, host: str, process_id: str, prefetch: int, host_expires_s: float
) -> Plan:
    """What a service needs that listens on `topic` as `host`; `process_id` makes the fanout queue's name.

    Raises `TopicTooLong`.
    """
    key, host_key, fanout = server_key(topic), server_key(topic, host), fanout_exchange(topic)
    expires = {"x-expires": int(host_expires_s * 1000)}
    mine = f"{fanout}_{process_id}"
    for name in (suspects_key(topic), nested_key(host_key), mine):
        checked(name)
    return Plan(
        (Exchange(exchange, "topic"), Exchange(fanout, "fanout")),
        (
            dead_letter_queue(),
            _bound(exchange, key, {}),
            _bound(exchange, host_key, expires),
            _bound(exchange, nested_key(key), {}),
            _bound(exchange, nested_key(host_key), expires),
            _bound(exchange, suspects_key(topic), {}),
            Queue(mine, durable=False, exclusive=True, bindings=((fanout, ""),)),
        ),
        (
            Consumer(SHARED, key, prefetch),
            Consumer(HOST, host_key, prefetch),
            Consumer(SUSPECTS, suspects_key(topic), 1),
            Consumer(NESTED, nested_key(key)),
            Consumer(HOST_NESTED, nested_key(host_key)),
            Consumer(FANOUT, mine, no_ack=True),
        ),
    )


def _bound(exchange: str, key: str, arguments: dict[str, Any]) -> Queue:
    """A durable queue named like the key that fills it."""
    return Queue(key, bindings=((exchange, key),), arguments=arguments)
