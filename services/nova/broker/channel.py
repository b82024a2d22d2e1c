"""A channel: publications that arrive in pieces, deliveries that wait for their settlement, publisher confirms.

What methods ask for in words (declare, bind, consume) is in `commands`; here is what happens for every message.
Closing a channel gives everything it holds back to the queues.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from nova.broker import properties, protocol
from nova.broker.errors import (
    ACCESS_REFUSED,
    NO_ROUTE,
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    RESOURCE_ERROR,
    SYNTAX_ERROR,
    UNEXPECTED_FRAME,
    AmqpFault,
)
from nova.broker.message import PLAIN, REPLY_TO, Facts, Message, facts_of

if TYPE_CHECKING:
    from nova.broker.broker import Deadline
    from nova.broker.connection import Connection
    from nova.broker.consumer import Consumer
    from nova.broker.queue import Queue

_REPLY_PREFIX = REPLY_TO + "."
_RETURN = protocol.U32.pack(protocol.BASIC_RETURN) + protocol.U16.pack(NO_ROUTE) + protocol.shortstr("NO_ROUTE")
_MAX_TARGETS = 64  # remembered basic.publish methods of a channel: most publishers use one or a few


class Target(NamedTuple):
    """What basic.publish says about a message."""

    exchange: str
    routing_key: str
    is_mandatory: bool


class Delivery(NamedTuple):
    """A message in a client's hands. `consumer` is None where basic.get took it."""

    message: Message
    queue: Queue
    consumer: Consumer | None
    at_s: float


class Channel:
    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.broker = connection.broker
        self.vhost = connection.vhost
        self.number = number
        self.consumers: dict[str, Consumer] = {}
        self.unacked: dict[int, Delivery] = {}
        self.consumer_prefetch = 0  # for consumers to come (qos without `global`)
        self.prefetch_limit = 0  # for all of the channel together (qos with `global`)
        self.last_queue = ""  # what an empty queue name stands for
        self.reply_key: str | None = None
        self.is_confirming = False
        self._delivery_tag = 0
        self._published = 0  # publications since confirm.select: the last one's tag
        self._confirmed = 0
        self._refused: list[int] = []
        self.has_stored = False  # something that must be kept was published since `take_published`
        self._deadline: Deadline | None = None
        # A publication under way: basic.publish has come, the header perhaps, parts of the body perhaps.
        self._target: Target | None = None
        self._targets: dict[bytes, Target] = {}
        self._header: bytes | None = None
        self._facts = PLAIN
        self._last_header = b""
        self._missing = 0
        self._parts: list[bytes] = []

    # Publications.

    def begin_publish(self, payload: bytes) -> None:
        """basic.publish; `payload` is the method frame's. Raises `AmqpFault`."""
        target = self._targets.get(payload)
        if target is None:
            arguments = protocol.Arguments(payload)
            arguments.short()
            exchange, routing_key, flags = arguments.shortstr(), arguments.shortstr(), arguments.octet()
            if flags & 2:
                raise AmqpFault(NOT_IMPLEMENTED, "immediate=true")
            target = Target(exchange, routing_key, bool(flags & 1))
            if len(self._targets) >= _MAX_TARGETS:
                self._targets.clear()
            self._targets[payload] = target
        self._target = target

    def publish_whole(self, payload: bytes, header: bytes, body: bytes) -> None:
        """basic.publish with all that belongs to it (`protocol.is_whole_message`). Raises `AmqpFault`."""
        self.begin_publish(payload)
        self._receive_header(header)
        self._publish(body)

    def receive_content(self, kind: int, payload: bytes) -> None:
        """A frame after basic.publish. Raises `AmqpFault` where it is not the one that must follow."""
        if self._header is None:
            if kind != protocol.HEADER:
                text = "expected content header for class 60, got non content header frame instead"
                raise AmqpFault(UNEXPECTED_FRAME, text, protocol.BASIC_PUBLISH)
            self._receive_header(payload)
            return
        if kind != protocol.BODY:
            text = "expected content body, got non content body frame instead"
            raise AmqpFault(UNEXPECTED_FRAME, text, protocol.BASIC_PUBLISH)
        if len(payload) == self._missing and not self._parts:
            self._publish(payload)
            return
        self._missing -= len(payload)
        if self._missing < 0:
            raise AmqpFault(UNEXPECTED_FRAME, "the content is longer than its header said")
        self._parts.append(payload)
        if not self._missing:
            self._publish(b"".join(self._parts))

    @property
    def is_receiving_content(self) -> bool:
        return self._target is not None

    def _receive_header(self, header: bytes) -> None:
        if len(header) < protocol.CONTENT_HEAD_SIZE or header[:2] != b"\0\x3c":
            self._refuse_header(header)
        size, largest = properties.body_size(header), self.broker.settings.message_limit_bytes
        if size > largest:
            text = f"message size {size} is larger than configured max size {largest}"
            raise AmqpFault(PRECONDITION_FAILED, text)
        if header == self._last_header:
            header = self._last_header  # equal headers share their memory and what was read of them
        else:
            self._facts = facts_of(header)
            self._last_header = header
        self._header = header
        self._missing = size
        if not size:
            self._publish(b"")

    def _refuse_header(self, header: bytes) -> None:
        if len(header) < protocol.CONTENT_HEAD_SIZE:
            raise AmqpFault(SYNTAX_ERROR, "no content header of class basic")
        text = f"expected content header for class 60, got one for class {header[0] << 8 | header[1]} instead"
        raise AmqpFault(UNEXPECTED_FRAME, text, protocol.BASIC_PUBLISH)

    def _publish(self, body: bytes) -> None:
        target, header, facts = self._target, self._header, self._facts
        assert target is not None
        assert header is not None
        self.forget_content()
        self._check_publication(target, facts)
        if facts.wants_reply:
            header = self._with_reply_address(header)
        exchange, routing_key, is_mandatory = target
        message = Message(exchange, routing_key, header, body, facts)
        self.connection.note_publication()
        if self.is_confirming:
            self._published += 1
            self.broker.confirms.add(self, facts.is_persistent)
            self.has_stored = self.has_stored or facts.is_persistent
        if not exchange and routing_key.startswith(_REPLY_PREFIX):
            is_routed = self._reply(message)
        else:
            queues = self.vhost.route(exchange, routing_key, header)
            is_routed = bool(queues)
            if facts.is_persistent and self.broker.is_disk_full and any(queue.durable for queue in queues):
                self._refuse()
            elif is_routed and not self.vhost.put(queues, message):
                self._refuse_quietly()
        if is_mandatory and not is_routed:
            names = protocol.shortstr(exchange) + protocol.shortstr(routing_key)
            self.send_content(_RETURN + names, message)

    def forget_content(self) -> None:
        self._target = self._header = None
        self._parts = []

    def _check_publication(self, target: Target, facts: Facts) -> None:
        if target.exchange:
            exchange = self.vhost.exchange(target.exchange)
            exchange.published += 1
            if exchange.internal:
                where = f"exchange '{target.exchange}' in vhost '{self.vhost.name}'"
                raise AmqpFault(ACCESS_REFUSED, f"cannot publish to internal {where}")
        if facts.user_id is not None and facts.user_id != self.connection.user:
            text = (
                f"user_id property set to '{facts.user_id}' but authenticated user was '{self.connection.user}'"
            )
            raise AmqpFault(PRECONDITION_FAILED, text)

    def _with_reply_address(self, header: bytes) -> bytes:
        if self.reply_key is None:
            raise AmqpFault(PRECONDITION_FAILED, "fast reply consumer does not exist")
        address = protocol.shortstr(_REPLY_PREFIX + self.reply_key)
        return properties.replace(header, {"reply_to": address})

    def _reply(self, message: Message) -> bool:
        channel = self.broker.reply_channels.get(message.routing_key[len(_REPLY_PREFIX) :])
        if channel is None:
            return False
        for consumer in channel.consumers.values():
            if consumer.queue is None:
                consumer.deliver(message)
        return True

    def _refuse(self) -> None:
        """There is no room on disk for what must be kept."""
        if not self.is_confirming:
            raise AmqpFault(RESOURCE_ERROR, "the journal has no room for another persistent message")
        self._refused.append(self._published)

    def _refuse_quietly(self) -> None:
        """A full queue refused it: only a publisher that asked for confirms is told (as in RabbitMQ)."""
        if self.is_confirming:
            self._refused.append(self._published)

    def take_published(self) -> int:
        """The last publication so far; what must be kept counts anew."""
        self.has_stored = False
        return self._published

    def send_confirms(self, is_safe: bool, last: int | None = None) -> None:
        """Confirms what was published, up to `last` where that is given; not `is_safe`: refuses it."""
        if last is None:
            last = self.take_published()
        if is_safe:
            for tag in self._refused:
                if tag > last:
                    break
                if tag - 1 > self._confirmed:
                    self._send_confirm(protocol.BASIC_ACK, tag - 1)
                self._send_confirm(protocol.BASIC_NACK, tag)
        if last > self._confirmed:
            self._send_confirm(protocol.BASIC_ACK if is_safe else protocol.BASIC_NACK, last)
        self._refused = [tag for tag in self._refused if tag > last]

    def _send_confirm(self, method: int, tag: int) -> None:
        is_multiple = tag > self._confirmed + 1
        self._confirmed = tag
        self.send(method, protocol.U64.pack(tag) + (b"\1" if is_multiple else b"\0"))

    # Deliveries.

    def next_delivery_tag(self) -> int:
        self._delivery_tag += 1
        return self._delivery_tag

    def remember(self, tag: int, message: Message, consumer: Consumer) -> None:
        assert consumer.queue is not None
        self.unacked[tag] = Delivery(message, consumer.queue, consumer, self.broker.now_s)
        if self._deadline is None:
            self._watch_time(self.broker.now_s)

    def remember_get(self, tag: int, message: Message, queue: Queue) -> None:
        self.unacked[tag] = Delivery(message, queue, None, self.broker.now_s)

    def ack(self, tag: int, is_multiple: bool) -> None:
        """Raises `AmqpFault` for a tag that is not outstanding."""
        for delivery in self._take(tag, is_multiple):
            queue = delivery.queue
            queue.settle(delivery.message)
            if queue.backlog:
                queue.pump()
        if self.prefetch_limit:
            self.pump_consumers()  # the channel's other queues waited for the same room

    def reject(self, tag: int, is_multiple: bool, is_requeued: bool) -> None:
        """Raises `AmqpFault` for a tag that is not outstanding."""
        deliveries = self._take(tag, is_multiple)
        if is_requeued:
            self._put_back(deliveries)
            return
        for delivery in deliveries:
            delivery.queue.reject(delivery.message)
            delivery.queue.pump()
        if self.prefetch_limit:
            self.pump_consumers()

    def _take(self, tag: int, is_multiple: bool) -> list[Delivery]:
        unacked = self.unacked
        if tag in unacked:
            # Tags grow, and a dict keeps their order.
            tags = [tag] if not is_multiple else list(itertools.takewhile(lambda each: each <= tag, unacked))
        elif tag == 0 and is_multiple:
            tags = list(unacked)
        else:
            raise AmqpFault(PRECONDITION_FAILED, f"unknown delivery tag {tag}")
        deliveries = []
        for each in tags:
            delivery = unacked.pop(each)
            if delivery.consumer is not None:
                delivery.consumer.unacked -= 1
            deliveries.append(delivery)
        return deliveries

    def _put_back(self, deliveries: list[Delivery]) -> None:
        touched: dict[Queue, None] = {}
        for delivery in deliveries:
            delivery.queue.put_back(delivery.message)
            touched[delivery.queue] = None
        for queue in touched:
            queue.pump()

    def recover(self) -> None:
        """All that is outstanding goes back to its queues."""
        self._put_back(self._take(0, True))

    def _watch_time(self, since_s: float) -> None:
        timeout_s = self.broker.settings.consumer_timeout_s
        if timeout_s:
            self._deadline = self.broker.call_at(since_s + timeout_s, self._check_time)

    def _check_time(self) -> None:
        """Closes the channel where a consumer has kept a message for too long; sleeps until the next one may."""
        self._deadline = None
        timeout_s = self.broker.settings.consumer_timeout_s
        oldest_s = min((each.at_s for each in self.unacked.values() if each.consumer is not None), default=None)
        if oldest_s is None:
            return
        if oldest_s + timeout_s > self.broker.now_s:
            self._watch_time(oldest_s)
            return
        fault = AmqpFault(
            PRECONDITION_FAILED,
            f"delivery acknowledgement on channel {self.number} timed out. Timeout value used: "
            f"{round(timeout_s * 1000)} ms. This timeout value can be configured, see consumers doc guide to"
            " learn more",
        )
        self.connection.fail(self, fault, 0)

    # Consumers.

    def add_consumer(self, consumer: Consumer) -> None:
        self.consumers[consumer.tag] = consumer
        if consumer.queue is not None:
            consumer.queue.add_consumer(consumer)

    @property
    def acknowledges(self) -> bool:
        """Whether acknowledgements may come."""
        consumers = self.consumers.values()
        return bool(self.unacked) or any(each.queue is not None and not each.no_ack for each in consumers)

    def cancel(self, consumer: Consumer) -> None:
        """What it has not settled stays outstanding."""
        del self.consumers[consumer.tag]
        queue = consumer.queue
        if queue is None:
            self._end_reply_consumer()
            return
        queue.remove_consumer(consumer)
        if queue.is_abandoned:
            self.vhost.delete_queue(queue)
        else:
            queue.pump()

    def _end_reply_consumer(self) -> None:
        if self.reply_key is not None:
            self.broker.reply_channels.pop(self.reply_key, None)
            self.reply_key = None

    def on_queue_deleted(self, consumer: Consumer) -> None:
        """The client is told that no more will come, if it said that it understands that."""
        self.consumers.pop(consumer.tag, None)
        if self.connection.has_capability("consumer_cancel_notify"):
            self.send(protocol.BASIC_CANCEL, protocol.shortstr(consumer.tag) + b"\1")

    def pump_consumers(self) -> None:
        """The consumers may take more than before."""
        for consumer in list(self.consumers.values()):
            if consumer.queue is not None:
                consumer.queue.pump()

    def cancel_consumers(self) -> None:
        for consumer in list(self.consumers.values()):
            if consumer.tag in self.consumers:  # an auto-delete queue may have taken others along
                self.cancel(consumer)

    def close(self) -> None:
        """Gives back what it holds. Consumers end first, so that nothing returns to them."""
        self.forget_content()
        self.cancel_consumers()
        self.recover()
        if self._deadline is not None:
            self._deadline.cancel()
        self.broker.confirms.forget(self)

    # Output.

    def send(self, method: int, arguments: bytes = b"") -> None:
        self.connection.send(protocol.method(self.number, method, arguments))

    def send_content(self, method_payload: bytes, message: Message) -> None:
        connection = self.connection
        connection.send(
            protocol.content(self.number, method_payload, message.header, message.body, connection.frame_max)
        )
