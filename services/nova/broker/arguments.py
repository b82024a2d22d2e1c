"""The x-arguments of queues and exchanges: checked once at declaration, then plain fields.

Pure. Unknown arguments are kept and ignored, as RabbitMQ does; the texts of refusal are RabbitMQ 3.10's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from nova.broker.errors import PRECONDITION_FAILED, AmqpFault
from nova.broker.message import MAX_TTL_MS
from nova.broker.table import Timestamp

MAX_PRIORITY = 255
OVERFLOWS = ("drop-head", "reject-publish", "reject-publish-dlx")

# What must be the same when a queue is declared again; the other arguments may differ.
QUEUE_IDENTITY = (
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-single-active-consumer",
    "x-queue-type",
)
EXCHANGE_IDENTITY = ("alternate-exchange",)


class QueueArguments:
    """Times in milliseconds, lengths in messages and bytes; None is absence."""

    __slots__ = (
        "dead_letter_exchange",
        "dead_letter_routing_key",
        "expires_ms",
        "max_length",
        "max_length_bytes",
        "max_priority",
        "overflow",
        "raw",
        "single_active_consumer",
        "ttl_ms",
    )

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        """`where` names the queue in a refusal. Raises `AmqpFault`."""
        for name, check in _QUEUE_CHECKS.items():
            if name in raw:
                why = check(raw[name])
                if why:
                    raise AmqpFault(PRECONDITION_FAILED, f"invalid arg '{name}' for {where}: {why}")
        exchange = raw.get("x-dead-letter-exchange")
        if exchange is not None and not isinstance(exchange, str):
            kind = field_type(exchange)
            text = f"invalid type '{kind}' for arg 'x-dead-letter-exchange' in {where}"
            raise AmqpFault(PRECONDITION_FAILED, text)
        routing_key = raw.get("x-dead-letter-routing-key")
        if routing_key is not None and exchange is None:
            text = f"invalid arg 'x-dead-letter-routing-key' for {where}: routing_key_but_no_dlx_defined"
            raise AmqpFault(PRECONDITION_FAILED, text)
        self.raw = dict(raw)
        self.ttl_ms: int | None = raw.get("x-message-ttl")
        self.expires_ms: int | None = raw.get("x-expires")
        self.max_length: int | None = raw.get("x-max-length")
        self.max_length_bytes: int | None = raw.get("x-max-length-bytes")
        self.max_priority: int | None = raw.get("x-max-priority")
        self.overflow: str = raw.get("x-overflow", "drop-head")
        self.dead_letter_exchange: str | None = exchange
        self.dead_letter_routing_key: str | None = routing_key
        self.single_active_consumer: bool = raw.get("x-single-active-consumer", False)


def alternate_exchange(raw: Mapping[str, Any], where: str) -> str | None:
    """The exchange that takes what an exchange cannot route. Raises `AmqpFault`."""
    name = raw.get("alternate-exchange")
    if name is None or isinstance(name, str):
        return name
    text = f"invalid type '{field_type(name)}' for arg 'alternate-exchange' in {where}"
    raise AmqpFault(PRECONDITION_FAILED, text)


def consumer_priority(raw: Mapping[str, Any], where: str) -> int:
    """`x-priority` of basic.consume, 0 where it is absent. Raises `AmqpFault`."""
    value = raw.get("x-priority", 0)
    why = _integer_fault(value)
    if why:
        raise AmqpFault(PRECONDITION_FAILED, f"invalid arg 'x-priority' for {where}: {why}")
    priority: int = value
    return priority


def check_equal(names: tuple[str, ...], current: Mapping[str, Any], asked: Mapping[str, Any], where: str) -> None:
    """Refuses a declaration whose arguments differ from those of what exists. Raises `AmqpFault`."""
    for name in names:
        old, new = current.get(name), asked.get(name)
        if old == new:
            continue
        if new is None:
            difference = f"received none but current is the value '{old}' of type '{field_type(old)}'"
        elif old is None:
            difference = f"received the value '{new}' of type '{field_type(new)}' but current is none"
        else:
            difference = f"received '{new}' but current is '{old}'"
        raise AmqpFault(PRECONDITION_FAILED, f"inequivalent arg '{name}' for {where}: {difference}")


def field_type(value: Any) -> str:
    """RabbitMQ's name of a value's field type."""
    if isinstance(value, int) and not isinstance(value, bool | Timestamp):
        return "signedint" if -(2**31) <= value < 2**31 else "long"
    return next(name for kind, name in _TYPE_NAMES if isinstance(value, kind))


_TYPE_NAMES: tuple[tuple[Any, str], ...] = (
    (bool, "bool"),
    (Timestamp, "timestamp"),
    (str, "longstr"),
    (bytes, "binary"),
    (float, "double"),
    (Mapping, "table"),
    (list, "array"),
    (Decimal, "decimal"),
    (object, "void"),
)


def _integer_fault(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool | Timestamp):
        return None
    return f'"expected integer, got {field_type(value)}"'


def _natural(value: Any) -> str | None:
    return _integer_fault(value) or (f"{{value_negative,{value}}}" if value < 0 else None)


def _ttl(value: Any) -> str | None:
    return _natural(value) or (f"{{value_too_large,{value}}}" if value > MAX_TTL_MS else None)


def _expires(value: Any) -> str | None:
    return _integer_fault(value) or ("{value_zero,0}" if value == 0 else _ttl(value))


def _priority(value: Any) -> str | None:
    return _natural(value) or (f"{{max_value_exceeded,{value}}}" if value > MAX_PRIORITY else None)


def _overflow(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"{{unacceptable_type,{field_type(value)}}}"
    return None if value in OVERFLOWS else "invalid_overflow"


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else f"{{unacceptable_type,{field_type(value)}}}"


def _mode(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"{{unacceptable_type,{field_type(value)}}}"
    return None if value in ("default", "lazy") else f"\"unsupported queue mode '{value}'\""


def _type(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"{{unacceptable_type,{field_type(value)}}}"
    return None if value == "classic" else f"\"unsupported queue type '{value}'\""


def _dead_letter_key(value: Any) -> str | None:
    return None if isinstance(value, str) else f"{{unacceptable_type,{field_type(value)}}}"


_QUEUE_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "x-expires": _expires,
    "x-message-ttl": _ttl,
    "x-max-length": _natural,
    "x-max-length-bytes": _natural,
    "x-max-priority": _priority,
    "x-overflow": _overflow,
    "x-single-active-consumer": _boolean,
    "x-queue-mode": _mode,
    "x-queue-type": _type,
    "x-dead-letter-routing-key": _dead_letter_key,
}
