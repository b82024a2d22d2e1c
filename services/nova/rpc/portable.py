"""RPC on every transport that kombu has: `redis://`, `amqps://`, `memory://`, and `amqp://` where that is asked
for.

Three connections, each used by one greenlet only, because kombu's calls read as well as write: one consumes
(workers write acks to it and nothing else), one publishes with confirms what must arrive or come back, one
publishes replies. Consuming wakes ten times a second to look for orders; whoever minds uses `fast`. Replies
come to an exclusive queue, since direct reply-to wants the caller to publish where it consumes. Needs a patched
process.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any

import kombu

from nova import green
from nova.rpc import options, topology
from nova.rpc.errors import LinkLost, NoSuchTopic
from nova.rpc.topology import Consumer, Plan, Queue
from nova.rpc.transport import Delivery, Handler, Message, Post
from nova.rpc.wire import CONTENT_TYPE

LOG = logging.getLogger(__name__)

DRAIN_S = 0.1
CONNECT_S = 5.0


def open_session(plan: Plan, handler: Handler) -> PortableSession:
    """Connect three times and declare. Raises whatever the transport raises."""
    with contextlib.ExitStack() as undo:
        consuming, confirming, replying = (_connect(undo, confirm) for confirm in (False, True, False))
        session = PortableSession(consuming, confirming, replying, plan, handler)
        undo.pop_all()
    return session


def _connect(undo: contextlib.ExitStack, confirm: bool) -> kombu.Connection:
    connection = kombu.Connection(
        options.broker_address().url,
        heartbeat=options.FLAGS.rpc_heartbeat,
        connect_timeout=CONNECT_S,
        transport_options={"confirm_publish": confirm, "socket_settings": options.SOCKET_SETTINGS},
    )
    undo.callback(_abandon, connection)
    connection.connect()
    return connection


def _abandon(connection: kombu.Connection) -> None:
    """Drop it without asking the broker: its answer might never come."""
    with contextlib.suppress(Exception):
        connection.collect(socket_timeout=0.1)


class Publisher:
    """One connection that publishes, in one greenlet, in the order given."""

    def __init__(self, connection: kombu.Connection, plan: Plan, on_end: Callable[[str], None]) -> None:
        self._connection = connection
        self._channel = connection.channel()
        self._producer = kombu.Producer(self._channel, on_return=self._on_return)
        self._on_end = on_end
        self._returned: str | None = None
        self._declared: set[str] = set()
        self._work = green.LightQueue()
        self._is_idle = green.Event()
        self._waiting = 0
        for exchange in plan.exchanges:
            self._declare(exchange.name, exchange.kind)
        self._greenlet = green.spawn(self._run)

    def put(self, message: Message, done: Callable[[str | None], None] | None = None) -> None:
        """`done(reason)` follows, with the broker's reason where no queue took it."""
        self._waiting += 1
        self._work.put((message, done))

    def flush(self, timeout_s: float) -> bool:
        if self._waiting:
            self._is_idle.wait(timeout_s)
        return not self._waiting

    def end(self) -> None:
        if self._greenlet is not green.getcurrent():
            self._greenlet.kill()
        _abandon(self._connection)

    def _run(self) -> None:
        interval_s = options.FLAGS.rpc_heartbeat / 2
        try:
            while True:
                try:
                    message, done = self._work.get(timeout=interval_s)
                except green.QueueEmpty:
                    _beat(self._connection)
                    continue
                self._publish(message)
                self._waiting -= 1
                if done is not None:
                    done(self._returned)
                if not self._waiting:
                    event, self._is_idle = self._is_idle, green.Event()
                    event.send()
        except Exception as error:  # what kombu raises depends on the transport; all of it ends the connection
            self._on_end(f"publishing: {error or type(error).__name__}")

    def _publish(self, message: Message) -> None:
        if message.exchange.endswith("_fanout"):
            self._declare(message.exchange, "fanout")
        self._returned = None
        self._producer.publish(
            message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            correlation_id=message.correlation_id,
            reply_to=message.reply_to,
            delivery_mode=2 if message.persistent else 1,
            mandatory=message.mandatory,
            headers=message.headers,
            content_type=CONTENT_TYPE,
            content_encoding="utf-8",
        )

    def _declare(self, name: str, kind: str) -> None:
        if name not in self._declared:
            self._declared.add(name)
            kombu.Exchange(name, kind, durable=True, channel=self._channel).declare()

    def _on_return(self, error: Any, exchange: str, routing_key: str, message: Any) -> None:
        self._returned = f"{error}: {routing_key}"


class PortableSession:
    """Three connections that live and die together; see `transport.Session`."""

    def __init__(
        self,
        consuming: kombu.Connection,
        confirming: kombu.Connection,
        replying: kombu.Connection,
        plan: Plan,
        handler: Handler,
    ) -> None:
        self._connection = consuming
        self._handler = handler
        self._plan = plan
        self._reply_queue = f"reply_{uuid.uuid4().hex}"
        self._orders: list[tuple[frozenset[str], green.Event]] = []
        self._consumers: dict[str, kombu.Consumer] = {}
        self._end_reason: str | None = None
        self._is_closing = False
        self._is_running = False
        self._declare_all()
        self._confirming = Publisher(confirming, plan, self._end)
        self._replying = Publisher(replying, plan, self._end)

    def _declare_all(self) -> None:
        channel = self._connection.channel()
        for exchange in self._plan.exchanges:
            kombu.Exchange(exchange.name, exchange.kind, durable=exchange.durable, channel=channel).declare()
        for queue in self._plan.queues:
            _queue(queue)(channel).declare()
        if any(consumer.queue == topology.DIRECT_REPLY for consumer in self._plan.consumers):
            _queue(Queue(self._reply_queue, durable=False, exclusive=True))(channel).declare()
        channel.close()

    def run(self, on_ready: Callable[[], None]) -> None:
        try:
            self._is_running = True
            for consumer in self._plan.consumers:
                self._consume(consumer)
            on_ready()
            self._drain()
        except OSError:
            if not self._is_closing:
                raise
        except self._connection.connection_errors + self._connection.channel_errors as error:
            if not self._is_closing:
                raise LinkLost(str(error) or type(error).__name__) from error
        finally:
            self._is_closing = True
            self._is_running = False
            self._confirming.end()
            self._replying.end()
            _abandon(self._connection)
            for _, done in self._orders:
                done.send()

    def _drain(self) -> None:
        beat_s = time.monotonic()
        while not self._is_closing:
            if self._end_reason is not None:
                raise LinkLost(self._end_reason)
            # The library's own timeout, on the socket: it keeps what it has read of a frame.
            with contextlib.suppress(socket.timeout):
                self._connection.drain_events(timeout=DRAIN_S)
            while self._orders:
                tags, done = self._orders.pop()
                for tag in tags & self._consumers.keys():
                    self._consumers.pop(tag).cancel()
                done.send()
            if time.monotonic() - beat_s > options.FLAGS.rpc_heartbeat / 2:
                beat_s = time.monotonic()
                _beat(self._connection)

    def _consume(self, consumer: Consumer) -> None:
        name = self._reply_queue if consumer.queue == topology.DIRECT_REPLY else consumer.queue
        declared = next((queue for queue in self._plan.queues if queue.name == name), Queue(name))
        channel = self._connection.channel()
        bound = kombu.Consumer(
            channel,
            [_queue(declared)(channel)],
            on_message=functools.partial(self._on_message, consumer),
            no_ack=consumer.no_ack,
            auto_declare=False,
            prefetch_count=None if consumer.no_ack else consumer.prefetch,
        )
        bound.consume()
        self._consumers[consumer.tag] = bound

    def _on_message(self, consumer: Consumer, message: Any) -> None:
        body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
        delivery = Delivery(
            self,
            consumer.tag,
            message,
            bool(message.delivery_info.get("redelivered")),
            body,
            message.properties.get("correlation_id"),
            message.properties.get("reply_to"),
        )
        self._handler.on_delivery(delivery)

    def send(self, message: Message) -> None:
        if message.reply_to == topology.DIRECT_REPLY:
            message.reply_to = self._reply_queue
        if not message.mandatory:
            self._replying.put(message)
            return

        def done(reason: str | None) -> None:
            if reason is not None:
                self._handler.on_return(message.correlation_id, reason)

        self._confirming.put(message, done)

    def post(self, post: Post) -> None:
        def done(reason: str | None) -> None:
            is_lost = reason is not None
            post.settle(NoSuchTopic(f"nobody listens on {post.message.routing_key}") if is_lost else None)

        self._confirming.put(post.message, done)

    def ack(self, delivery: Delivery) -> None:
        self._answer(delivery.tag.ack)

    def requeue(self, delivery: Delivery) -> None:
        self._answer(delivery.tag.requeue)

    def _answer(self, answer: Callable[[], None]) -> None:
        try:
            answer()
        except Exception as error:  # depends on the transport; the message comes again on the next connection
            self._end(f"acknowledging: {error or type(error).__name__}")

    def cancel(self, tags: frozenset[str], timeout_s: float) -> bool:
        done = green.Event()
        self._orders.append((tags, done))
        done.wait(timeout_s)
        return bool(done.ready())

    def wait_writable(self, timeout_s: float) -> bool:
        return True  # what the broker does not take waits in the publisher, and its call or cast for the deadline

    def flush(self, timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        return self._confirming.flush(timeout_s) and self._replying.flush(max(0.0, deadline_s - time.monotonic()))

    def close(self, timeout_s: float) -> None:
        if timeout_s > 0 and not self._is_closing:
            self.flush(timeout_s)
        self._is_closing = True  # `run` sees it within DRAIN_S and drops the connections
        if not self._is_running:
            self._confirming.end()
            self._replying.end()
            _abandon(self._connection)

    def _end(self, reason: str) -> None:
        self._end_reason = self._end_reason or reason


def _queue(queue: Queue) -> kombu.Queue:
    exchange, key = queue.bindings[0] if queue.bindings else ("", queue.name)
    kind = "fanout" if exchange.endswith("_fanout") else "topic" if exchange else "direct"
    return kombu.Queue(
        queue.name,
        kombu.Exchange(exchange, kind, durable=True),
        key,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=False,
        queue_arguments=queue.arguments,
    )


def _beat(connection: kombu.Connection) -> None:
    """Send a heartbeat, after reading those of the broker: an unread one looks like a silent broker."""
    if connection.supports_heartbeats:
        with contextlib.suppress(socket.timeout):
            connection.drain_events(timeout=0.01)
        connection.heartbeat_check()
