"""What a client can ask of a channel: the methods of the classes channel, exchange, queue, basic and confirm.

One function a method, in `COMMANDS` by its number: it reads the arguments, has the virtual host or the channel do
it, and answers unless the client said no-wait. As in RabbitMQ, the answer precedes what follows from the method:
deliveries, and the cancellation of consumers. Faults are raised as `AmqpFault`.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import Any

from nova.broker import protocol
from nova.broker.arguments import consumer_priority
from nova.broker.channel import Channel
from nova.broker.consumer import Consumer
from nova.broker.errors import (
    ACCESS_REFUSED,
    NOT_ALLOWED,
    NOT_FOUND,
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    AmqpFault,
)
from nova.broker.message import REPLY_TO
from nova.broker.protocol import Arguments, shortstr
from nova.broker.queue import Queue
from nova.broker.vhost import refuse_default

Command = Callable[[Channel, Arguments], None]

_U32 = protocol.U32.pack
_GET_OK = _U32(protocol.BASIC_GET_OK)
MAX_CONSUMERS = 10_000  # of a channel


def _queue_name(channel: Channel, name: str) -> str:
    """An empty name stands for the queue that this channel declared last."""
    if not name:
        name = channel.last_queue
        if not name:
            raise AmqpFault(NOT_FOUND, "no previously declared queue")
    return name


def _queue(channel: Channel, name: str) -> Queue:
    return channel.vhost.queue(_queue_name(channel, name), channel.connection)


def channel_flow(channel: Channel, arguments: Arguments) -> None:
    if not arguments.octet() & 1:
        raise AmqpFault(NOT_IMPLEMENTED, "active=false")
    channel.send(protocol.CHANNEL_FLOW_OK, b"\1")


def exchange_declare(channel: Channel, arguments: Arguments) -> None:
    arguments.short()
    name, type, flags = arguments.shortstr(), arguments.shortstr(), arguments.octet()
    raw = arguments.table()
    if flags & 1:  # passive
        refuse_default(name)
        channel.vhost.exchange(name)
    else:
        channel.vhost.declare_exchange(
            name, type, raw, durable=bool(flags & 2), auto_delete=bool(flags & 4), internal=bool(flags & 8)
        )
    if not flags & 16:
        channel.send(protocol.EXCHANGE_DECLARE_OK)


def exchange_delete(channel: Channel, arguments: Arguments) -> None:
    arguments.short()
    name, flags = arguments.shortstr(), arguments.octet()
    channel.vhost.delete_exchange(name, if_unused=bool(flags & 1))
    if not flags & 2:
        channel.send(protocol.EXCHANGE_DELETE_OK)


def _two_exchanges(arguments: Arguments) -> tuple[str, str, str, dict[str, Any], bool]:
    """(source, destination, routing key, arguments, is no answer wanted)."""
    arguments.short()
    destination, source, routing_key = arguments.shortstr(), arguments.shortstr(), arguments.shortstr()
    flags, raw = arguments.octet(), arguments.table()
    refuse_default(source)
    refuse_default(destination)
    return source, destination, routing_key, raw, bool(flags & 1)


def exchange_bind(channel: Channel, arguments: Arguments) -> None:
    source, destination, routing_key, raw, is_no_wait = _two_exchanges(arguments)
    vhost = channel.vhost
    vhost.exchange(source)
    vhost.bind(source, vhost.exchange(destination), routing_key, raw)
    if not is_no_wait:
        channel.send(protocol.EXCHANGE_BIND_OK)


def exchange_unbind(channel: Channel, arguments: Arguments) -> None:
    source, destination, routing_key, raw, is_no_wait = _two_exchanges(arguments)
    exchanges = channel.vhost.exchanges
    if source in exchanges and destination in exchanges:
        channel.vhost.unbind(exchanges[source], exchanges[destination], routing_key, raw)
    if not is_no_wait:
        channel.send(protocol.EXCHANGE_UNBIND_OK)


def queue_declare(channel: Channel, arguments: Arguments) -> None:
    arguments.short()
    name, flags, raw = arguments.shortstr(), arguments.octet(), arguments.table()
    is_passive, is_no_wait = bool(flags & 1), bool(flags & 16)
    if is_passive:
        if name.startswith(REPLY_TO):
            _declare_reply_queue(channel, name, is_no_wait)
            return
        queue = channel.vhost.queue(name, channel.connection)  # here an empty name is no abbreviation
        queue.touch()
    else:
        queue = channel.vhost.declare_queue(
            name,
            raw,
            durable=bool(flags & 2),
            auto_delete=bool(flags & 8),
            owner=channel.connection if flags & 4 else None,
            asker=channel.connection,
        )
        if flags & 4:
            channel.connection.exclusive_queues[queue.name] = queue
    channel.last_queue = queue.name
    if not is_no_wait:
        _answer_declare(channel, queue.name, queue.ready, len(queue.consumers))


def _answer_declare(channel: Channel, name: str, ready: int, consumers: int) -> None:
    channel.send(protocol.QUEUE_DECLARE_OK, shortstr(name) + _U32(ready) + _U32(consumers))


def _declare_reply_queue(channel: Channel, name: str, is_no_wait: bool) -> None:
    """A client may ask whether a reply would still find its requester."""
    key = name[len(REPLY_TO) + 1 :]
    if key and key not in channel.broker.reply_channels:
        raise AmqpFault(NOT_FOUND, f"no queue '{name}' in vhost '{channel.vhost.name}'")
    if not is_no_wait:
        _answer_declare(channel, name, 0, 1)


def queue_bind(channel: Channel, arguments: Arguments) -> None:
    arguments.short()
    name, exchange, routing_key = arguments.shortstr(), arguments.shortstr(), arguments.shortstr()
    flags, raw = arguments.octet(), arguments.table()
    # Both empty: the last queue, by its name (section 1.7.2.3.3).
    if not name and not routing_key:
        routing_key = channel.last_queue
    name = _queue_name(channel, name)
    refuse_default(exchange)
    channel.vhost.exchange(exchange)
    channel.vhost.bind(exchange, channel.vhost.queue(name, channel.connection), routing_key, raw)
    if not flags & 1:
        channel.send(protocol.QUEUE_BIND_OK)


def queue_unbind(channel: Channel, arguments: Arguments) -> None:
    arguments.short()
    name, exchange, routing_key = arguments.shortstr(), arguments.shortstr(), arguments.shortstr()
    raw = arguments.table()
    name = _queue_name(channel, name)
    refuse_default(exchange)
    vhost = channel.vhost
    if name in vhost.queues and exchange in vhost.exchanges:
        vhost.unbind(vhost.exchanges[exchange], vhost.queue(name, channel.connection), routing_key, raw)
    channel.send(protocol.QUEUE_UNBIND_OK)


def queue_purge(channel: Channel, arguments: Arguments) -> None:
    arguments.short()
    name, flags = arguments.shortstr(), arguments.octet()
    count = _queue(channel, name).purge()
    if not flags & 1:
        channel.send(protocol.QUEUE_PURGE_OK, _U32(count))


def queue_delete(channel: Channel, arguments: Arguments) -> None:
    arguments.short()
    name, flags = arguments.shortstr(), arguments.octet()
    name = _queue_name(channel, name)
    vhost = channel.vhost
    queue = vhost.queue(name, channel.connection) if name in vhost.queues else None
    if queue is not None:
        if flags & 1 and len(queue.consumers):
            raise AmqpFault(PRECONDITION_FAILED, f"queue '{name}' in vhost '{vhost.name}' in use")
        if flags & 2 and queue.ready:
            raise AmqpFault(PRECONDITION_FAILED, f"queue '{name}' in vhost '{vhost.name}' not empty")
    if not flags & 4:
        channel.send(protocol.QUEUE_DELETE_OK, _U32(queue.ready if queue is not None else 0))
    if queue is not None:
        vhost.delete_queue(queue)
        channel.connection.exclusive_queues.pop(name, None)


def basic_qos(channel: Channel, arguments: Arguments) -> None:
    size, count, flags = arguments.long(), arguments.short(), arguments.octet()
    if size:
        raise AmqpFault(NOT_IMPLEMENTED, f"prefetch_size!=0 ({size})")
    channel.send(protocol.BASIC_QOS_OK)
    if flags & 1:
        channel.prefetch_limit = count
    else:
        channel.consumer_prefetch = count
        channel.prefetch_limit = 0  # as RabbitMQ does; who wants both limits asks for the channel's last
    channel.pump_consumers()


def basic_consume(channel: Channel, arguments: Arguments) -> None:
    arguments.short()
    name, tag, flags = arguments.shortstr(), arguments.shortstr(), arguments.octet()
    raw = arguments.table()
    no_ack, is_exclusive = bool(flags & 2), bool(flags & 4)
    tag = tag or f"amq.ctag-{fresh_key()}"
    if tag in channel.consumers:
        raise AmqpFault(NOT_ALLOWED, f"attempt to reuse consumer tag '{tag}'")
    if len(channel.consumers) >= MAX_CONSUMERS:
        raise AmqpFault(PRECONDITION_FAILED, f"a channel has at most {MAX_CONSUMERS} consumers")
    if name == REPLY_TO:
        consumer = _reply_consumer(channel, tag, no_ack)
    else:
        consumer = _queue_consumer(channel, _queue(channel, name), tag, no_ack, is_exclusive)
        consumer.priority = consumer_priority(
            raw, f"queue '{_queue_name(channel, name)}' in vhost '{channel.vhost.name}'"
        )
    channel.add_consumer(consumer)
    if not flags & 8:
        channel.send(protocol.BASIC_CONSUME_OK, shortstr(tag))
    if consumer.queue is not None:
        consumer.queue.pump()


def _reply_consumer(channel: Channel, tag: str, no_ack: bool) -> Consumer:
    if not no_ack:
        raise AmqpFault(PRECONDITION_FAILED, "reply consumer cannot acknowledge")
    if channel.reply_key is not None:
        raise AmqpFault(PRECONDITION_FAILED, "reply consumer already set")
    channel.reply_key = fresh_key()
    channel.broker.reply_channels[channel.reply_key] = channel
    return Consumer(channel, tag, None, no_ack=True)


def _queue_consumer(channel: Channel, queue: Queue, tag: str, no_ack: bool, is_exclusive: bool) -> Consumer:
    is_taken = any(consumer.is_exclusive for consumer in queue.consumers)
    if is_taken or (is_exclusive and (len(queue.consumers) or queue.arguments.single_active_consumer)):
        text = f"queue '{queue.name}' in vhost '{channel.vhost.name}' in exclusive use"
        raise AmqpFault(ACCESS_REFUSED, text)
    limit = channel.consumer_prefetch
    return Consumer(channel, tag, queue, no_ack=no_ack, limit=limit, is_exclusive=is_exclusive)


def basic_cancel(channel: Channel, arguments: Arguments) -> None:
    tag, flags = arguments.shortstr(), arguments.octet()
    if not flags & 1:
        channel.send(protocol.BASIC_CANCEL_OK, shortstr(tag))
    consumer = channel.consumers.get(tag)
    if consumer is not None:
        channel.cancel(consumer)


def basic_get(channel: Channel, arguments: Arguments) -> None:
    arguments.short()
    name, flags = arguments.shortstr(), arguments.octet()
    queue = _queue(channel, name)
    queue.touch()
    message = queue.next_message()
    if message is None:
        channel.send(protocol.BASIC_GET_EMPTY, b"\0")
        return
    tag = channel.next_delivery_tag()
    payload = _GET_OK + protocol.U64.pack(tag) + (b"\1" if message.redelivered else b"\0")
    payload += shortstr(message.exchange) + shortstr(message.routing_key) + _U32(queue.ready)
    channel.send_content(payload, message)
    if flags & 1:
        queue.settle(message)
    else:
        channel.remember_get(tag, message, queue)


def basic_ack(channel: Channel, arguments: Arguments) -> None:
    channel.ack(arguments.longlong(), bool(arguments.octet() & 1))


def basic_reject(channel: Channel, arguments: Arguments) -> None:
    channel.reject(arguments.longlong(), False, bool(arguments.octet() & 1))


def basic_nack(channel: Channel, arguments: Arguments) -> None:
    tag, flags = arguments.longlong(), arguments.octet()
    channel.reject(tag, bool(flags & 1), bool(flags & 2))


def basic_recover_async(channel: Channel, arguments: Arguments) -> None:
    _check_requeue(arguments)
    channel.recover()


def basic_recover(channel: Channel, arguments: Arguments) -> None:
    _check_requeue(arguments)
    channel.send(protocol.BASIC_RECOVER_OK)
    channel.recover()


def _check_requeue(arguments: Arguments) -> None:
    if not arguments.octet() & 1:
        raise AmqpFault(NOT_IMPLEMENTED, "requeue=false")


def confirm_select(channel: Channel, arguments: Arguments) -> None:
    channel.is_confirming = True
    if not arguments.octet() & 1:
        channel.send(protocol.CONFIRM_SELECT_OK)


def fresh_key() -> str:
    """Cannot be guessed: who knows a reply key can answer in another's name."""
    return base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()


COMMANDS: dict[int, Command] = {
    protocol.CHANNEL_FLOW: channel_flow,
    protocol.EXCHANGE_DECLARE: exchange_declare,
    protocol.EXCHANGE_DELETE: exchange_delete,
    protocol.EXCHANGE_BIND: exchange_bind,
    protocol.EXCHANGE_UNBIND: exchange_unbind,
    protocol.QUEUE_DECLARE: queue_declare,
    protocol.QUEUE_BIND: queue_bind,
    protocol.QUEUE_UNBIND: queue_unbind,
    protocol.QUEUE_PURGE: queue_purge,
    protocol.QUEUE_DELETE: queue_delete,
    protocol.BASIC_QOS: basic_qos,
    protocol.BASIC_CONSUME: basic_consume,
    protocol.BASIC_CANCEL: basic_cancel,
    protocol.BASIC_GET: basic_get,
    protocol.BASIC_ACK: basic_ack,
    protocol.BASIC_REJECT: basic_reject,
    protocol.BASIC_NACK: basic_nack,
    protocol.BASIC_RECOVER: basic_recover,
    protocol.BASIC_RECOVER_ASYNC: basic_recover_async,
    protocol.CONFIRM_SELECT: confirm_select,
}
