"""What a connection agrees on before it opens: who the broker is, what it can do, and the limits of both sides.

Pure. Source: AMQP 0-9-1, class connection; limits and texts as in RabbitMQ 3.10.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from nova.broker import login, protocol, table
from nova.broker.errors import NOT_ALLOWED, AmqpFault
from nova.broker.protocol import Arguments

CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "consumer_priorities": True,
    "authentication_failure_close": True,
    "per_consumer_qos": True,
    "direct_reply_to": True,
}
SERVER_PROPERTIES = {
    "product": "nova-broker",
    "platform": f"Python {sys.version_info.major}.{sys.version_info.minor}",
    "capabilities": CAPABILITIES,
}


class Limits(NamedTuple):
    """`frame_max` in bytes of a whole frame; a heartbeat of 0 means none."""

    channel_max: int
    frame_max: int
    heartbeat_s: int


def start() -> bytes:
    """The arguments of connection.start."""
    return (
        b"\0\x09"
        + table.encode(SERVER_PROPERTIES)
        + protocol.longstr(login.MECHANISMS)
        + protocol.longstr(b"en_US")
    )


def tune(offered: Limits) -> bytes:
    """The arguments of connection.tune."""
    return (
        protocol.U16.pack(offered.channel_max)
        + protocol.U32.pack(offered.frame_max)
        + protocol.U16.pack(offered.heartbeat_s)
    )


def tune_ok(arguments: Arguments, offered: Limits) -> Limits:
    """What the client settled for. Raises `AmqpFault` where that is more than was offered."""
    channel_max, frame_max, heartbeat_s = arguments.short(), arguments.long(), arguments.short()
    _check("frame_max", protocol.FRAME_MIN, frame_max, offered.frame_max)
    _check("channel_max", 1, channel_max, offered.channel_max)
    return Limits(channel_max or offered.channel_max, frame_max or offered.frame_max, heartbeat_s)


def _check(field: str, lowest: int, value: int, highest: int) -> None:
    if value and value < lowest:
        difference = f"lower than the minimum allowed value ({lowest})"
    elif highest and (not value or value > highest):
        difference = f"higher than the maximum allowed value ({highest})"
    else:
        return
    raise AmqpFault(NOT_ALLOWED, f"negotiated {field} = {value} is {difference}")
