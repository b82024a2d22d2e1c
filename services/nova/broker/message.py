"""One message in one queue.

The header and the body are the bytes the publisher sent; queues that receive the same publication share them. The
number orders all messages of a broker by arrival: it is what a requeued message finds its place by, and its
identity in the journal.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from nova.broker import properties
from nova.broker.errors import PRECONDITION_FAILED, AmqpFault

if TYPE_CHECKING:
    from nova.broker.segment import Segment

OVERHEAD_BYTES = 300  # of the objects around a message, measured with 200-byte bodies
MAX_TTL_MS = 10 * 365 * 24 * 3600 * 1000  # ten years: RabbitMQ's limit for every time to live


class Message:
    """`expires_s` is a moment of the broker's clock, `segment` the journal's file that holds the message."""

    __slots__ = (
        "body",
        "exchange",
        "expires_s",
        "facts",
        "header",
        "number",
        "redelivered",
        "routing_key",
        "segment",
    )

    def __init__(self, exchange: str, routing_key: str, header: bytes, body: bytes, facts: Facts) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.header = header
        self.body = body
        self.facts = facts
        self.redelivered = False
        self.expires_s: float | None = None
        self.number = 0
        self.segment: Segment | None = None

    def copy(self) -> Message:
        """The same publication, for another queue."""
        return Message(self.exchange, self.routing_key, self.header, self.body, self.facts)

    @property
    def size(self) -> int:
        """Bytes it takes in memory, roughly."""
        return len(self.header) + len(self.body) + OVERHEAD_BYTES


class Facts(NamedTuple):
    """What the broker itself needs to know of a message's properties."""

    is_persistent: bool = False
    priority: int = 0
    ttl_ms: int | None = None
    user_id: str | None = None
    wants_reply: bool = False


PLAIN, KEPT = Facts(), Facts(is_persistent=True)
REPLY_TO = "amq.rabbitmq.reply-to"
_REPLY_TO = bytes((len(REPLY_TO),)) + REPLY_TO.encode()
_SPECIAL = sum(properties.FIELDS[name][0] for name in ("priority", "expiration", "user_id", "reply_to"))
_SHARED: dict[Facts, Facts] = {}
MAX_SHARED = 1024
_INTEGER = re.compile(r"[+-]?[0-9]+")


def facts_of(header: bytes) -> Facts:
    """Reads the properties that matter to the broker. Raises `MalformedHeader` and `AmqpFault`."""
    mode = properties.mode_of_simple(header)
    if mode is not None:
        return KEPT if mode == properties.PERSISTENT else PLAIN
    found = properties.locate(header)
    is_persistent = "delivery_mode" in found and header[found["delivery_mode"][0]] == properties.PERSISTENT
    if not properties.flags_of(header) & _SPECIAL:
        return KEPT if is_persistent else PLAIN
    priority = header[found["priority"][0]] if "priority" in found else 0
    ttl_ms = _expiration(header, *found["expiration"]) if "expiration" in found else None
    user_id = None
    if "user_id" in found:
        start, end = found["user_id"]
        user_id = header[start + 1 : end].decode(errors="replace")
    wants_reply = "reply_to" in found and header[slice(*found["reply_to"])] == _REPLY_TO
    return _share(Facts(is_persistent, priority, ttl_ms, user_id, wants_reply))


def _share(facts: Facts) -> Facts:
    """Equal facts are one object: a million messages in queues have a handful of them."""
    if len(_SHARED) >= MAX_SHARED:
        _SHARED.clear()
    return _SHARED.setdefault(facts, facts)


def _expiration(header: bytes, start: int, end: int) -> int:
    text = header[start + 1 : end].decode(errors="replace")
    number = _INTEGER.match(text)
    if number is None:
        why = "no_integer"
    elif number.end() < len(text):
        why = f'{{leftover_string,"{text[number.end() :]}"}}'
    else:
        ttl_ms = int(text)
        if 0 <= ttl_ms <= MAX_TTL_MS:
            return ttl_ms
        why = f"{{value_negative,{ttl_ms}}}" if ttl_ms < 0 else f"{{value_too_large,{ttl_ms}}}"
    raise AmqpFault(PRECONDITION_FAILED, f"invalid expiration '{text}': {why}")
