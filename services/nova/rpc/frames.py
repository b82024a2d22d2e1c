"""The AMQP methods that a caller and a service speak on the hot path: bytes there and back.

Pure; the frame format itself is `nova.broker.protocol`. Only what `fast` sends and receives after the handshake
is here. A content header is read by walking over its properties once, never by building a table of them.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

from nova.broker import properties, protocol
from nova.rpc.wire import CONTENT_TYPE

_HEAD = struct.Struct(">HHQH")
_CONTENT_TYPE = protocol.shortstr(CONTENT_TYPE)
_TRANSIENT, _PERSISTENT = b"\x01", b"\x02"
_TYPE, _ENCODING, _HEADERS, _MODE, _PRIORITY, _CORRELATION, _REPLY_TO = (1 << bit for bit in range(15, 8, -1))
_ACK = struct.Struct(">BHIIQBB")
_NACK_REQUEUE = 2

REPLY_NO_ROUTE = 312
REPLY_SUCCESS = 200


@functools.lru_cache(maxsize=1024)
def publish(exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """basic.publish: the method's payload."""
    return b"".join(
        (
            protocol.U32.pack(protocol.BASIC_PUBLISH),
            b"\0\0",
            protocol.shortstr(exchange),
            protocol.shortstr(routing_key),
            b"\x01" if mandatory else b"\0",
        )
    )


def header(size: int, persistent: bool, correlation_id: str | None, reply_to: str | None) -> bytes:
    """The content header of a JSON body of `size` bytes."""
    flags = _TYPE | _MODE
    tail = _CONTENT_TYPE + (_PERSISTENT if persistent else _TRANSIENT)
    if correlation_id is not None:
        flags |= _CORRELATION
        tail += protocol.shortstr(correlation_id)
    if reply_to is not None:
        flags |= _REPLY_TO
        tail += protocol.shortstr(reply_to)
    return _HEAD.pack(properties.BASIC_CLASS, 0, size, flags) + tail


def header_with_table(
    size: int, persistent: bool, correlation_id: str | None, reply_to: str | None, headers: dict[str, Any]
) -> bytes:
    """The same with a table of headers, for the few messages that have one."""
    return properties.encode(
        size,
        {
            "content_type": CONTENT_TYPE,
            "headers": headers,
            "delivery_mode": properties.PERSISTENT if persistent else 1,
            "correlation_id": correlation_id,
            "reply_to": reply_to,
        },
    )


def read_header(payload: bytes) -> tuple[int, str | None, str | None]:
    """(body size, correlation id, reply-to). Raises `ValueError` or `IndexError` for a broken header."""
    _, _, size, flags = _HEAD.unpack_from(payload)
    position = _HEAD.size
    if flags & _TYPE:
        position += 1 + payload[position]
    if flags & _ENCODING:
        position += 1 + payload[position]
    if flags & _HEADERS:
        position += 4 + protocol.U32.unpack_from(payload, position)[0]
    if flags & _MODE:
        position += 1
    if flags & _PRIORITY:
        position += 1
    correlation_id = reply_to = None
    if flags & _CORRELATION:
        end = position + 1 + payload[position]
        correlation_id = payload[position + 1 : end].decode()
        position = end
    if flags & _REPLY_TO:
        end = position + 1 + payload[position]
        reply_to = payload[position + 1 : end].decode()
    return size, correlation_id, reply_to


def read_deliver(payload: bytes) -> tuple[str, int, bool]:
    """basic.deliver: (consumer tag, delivery tag, redelivered)."""
    end = 5 + payload[4]
    return (
        payload[5:end].decode(),
        protocol.U64.unpack_from(payload, end)[0],
        bool(payload[end + 8]),
    )


def read_return(payload: bytes) -> tuple[int, str, str]:
    """basic.return: (reply code, reply text, routing key)."""
    arguments = protocol.Arguments(payload)
    code, text = arguments.short(), arguments.shortstr()
    arguments.shortstr()
    return code, text, arguments.shortstr()


def read_close(payload: bytes) -> str:
    """connection.close and channel.close: the broker's reason in words."""
    arguments = protocol.Arguments(payload)
    code = arguments.short()
    return f"{code} {arguments.shortstr()}"


def read_confirm(payload: bytes) -> tuple[int, bool]:
    """basic.ack and basic.nack from the broker: (delivery tag, multiple)."""
    return protocol.U64.unpack_from(payload, 4)[0], bool(payload[12] & 1)


def ack(channel: int, tag: int, is_multiple: bool) -> bytes:
    return _ACK.pack(protocol.METHOD, channel, 13, protocol.BASIC_ACK, tag, is_multiple, protocol.FRAME_END)


def requeue(channel: int, tag: int) -> bytes:
    """basic.nack of one message, back to its queue."""
    return _ACK.pack(protocol.METHOD, channel, 13, protocol.BASIC_NACK, tag, _NACK_REQUEUE, protocol.FRAME_END)


def qos(channel: int, prefetch: int) -> bytes:
    """For the consumers that follow on this channel."""
    return protocol.method(channel, protocol.BASIC_QOS, struct.pack(">IHB", 0, prefetch, 0))


def consume(channel: int, queue: str, tag: str, no_ack: bool) -> bytes:
    bits = b"\x02" if no_ack else b"\0"
    arguments = b"\0\0" + protocol.shortstr(queue) + protocol.shortstr(tag) + bits + protocol.U32.pack(0)
    return protocol.method(channel, protocol.BASIC_CONSUME, arguments)


def cancel(channel: int, tag: str) -> bytes:
    return protocol.method(channel, protocol.BASIC_CANCEL, protocol.shortstr(tag) + b"\0")


def declare_exchange(channel: int, name: str, kind: str) -> bytes:
    """A durable exchange, without asking for an answer: a wrong one closes the channel."""
    durable_nowait = b"\x12"
    arguments = (
        b"\0\0" + protocol.shortstr(name) + protocol.shortstr(kind) + durable_nowait + protocol.U32.pack(0)
    )
    return protocol.method(channel, protocol.EXCHANGE_DECLARE, arguments)


def close_connection() -> bytes:
    arguments = protocol.U16.pack(REPLY_SUCCESS) + protocol.shortstr("bye") + protocol.U32.pack(0)
    return protocol.method(0, protocol.CONNECTION_CLOSE, arguments)


def close_ok() -> bytes:
    return protocol.method(0, protocol.CONNECTION_CLOSE_OK)


class Assembler:
    """Puts the frames of messages together, channel by channel."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[int, list] = {}

    def begin(self, channel: int, payload: bytes) -> None:
        """A basic.deliver or basic.return has come."""
        self._open[channel] = [payload, None, 0, None, None, []]

    def head(self, channel: int, payload: bytes) -> list | None:
        """The content header has come; returns the message where its body is empty."""
        content = self._open[channel]
        size, content[3], content[4] = read_header(payload)
        content[2] = size
        if size:
            return None
        content[1] = b""
        return self._open.pop(channel)

    def body(self, channel: int, payload: bytes) -> list | None:
        """A piece of the body; returns [method payload, body, size, correlation id, reply-to, ...] when
        complete.
        """
        content = self._open[channel]
        if len(payload) == content[2] and not content[5]:
            content[1] = payload
            return self._open.pop(channel)
        content[5].append(payload)
        if sum(map(len, content[5])) < content[2]:
            return None
        content[1] = b"".join(content[5])
        return self._open.pop(channel)
