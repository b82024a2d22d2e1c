"""Dead letters: what happens to a message that expired, was rejected, or fell out of a full queue.

Pure. The message goes to the queue's dead-letter exchange with a record of its deaths in the header `x-death`,
newest first, one entry for each pair of queue and reason. A message that comes back to a queue without anybody
having rejected it on the way turns in a circle for ever, so it is dropped. Source:
https://www.rabbitmq.com/docs/dlx and rabbit_dead_letter.erl of RabbitMQ 3.10.
"""

from __future__ import annotations

from typing import Any

from nova.broker import properties, table
from nova.broker.message import Message, facts_of
from nova.broker.queue import Queue

_FIRST = ("exchange", "queue", "reason")


def letter(message: Message, queue: Queue, reason: str, at_s: int) -> Message:
    """The message to publish in place of one that died in `queue`; `at_s` is the wall clock's Unix time.

    Raises `ValueError` (`MalformedHeader`, `MalformedTable`) where the publisher's headers are no table.
    """
    found = properties.locate(message.header)
    fields = _headers(message.header, found)
    deaths = _deaths(fields)
    entry: dict[str, Any] = {
        "count": 0,
        "reason": reason,
        "queue": queue.name,
        "time": table.Timestamp(at_s),
        "exchange": message.exchange,
        "routing-keys": [message.routing_key],
    }
    if "expiration" in found:
        entry["original-expiration"] = properties.read(message.header, "expiration")
    for death in deaths:
        if death.get("queue") == queue.name and death.get("reason") == reason:
            entry = death
            deaths.remove(death)
            break
    entry["count"] = _count(entry) + 1
    fields["x-death"] = _encode_deaths([entry, *deaths])
    for name in _FIRST:
        fields.setdefault(f"x-first-death-{name}", table.encode_value(entry.get(name, "")))
    header = properties.replace(message.header, {"headers": table.join(fields), "expiration": None})
    routing_key = queue.arguments.dead_letter_routing_key
    if routing_key is None:
        routing_key = message.routing_key
    exchange = queue.arguments.dead_letter_exchange
    assert exchange is not None
    return Message(exchange, routing_key, header, message.body, facts_of(header))


def is_circle(message: Message, target: str) -> bool:
    """Whether the dead letter `message` has been in the queue `target` and no rejection brought it back."""
    found = properties.locate(message.header)
    for death in _deaths(_headers(message.header, found)):
        if death.get("reason") == "rejected":
            return False
        if death.get("queue") == target:
            return True
    return False


def _headers(header: bytes, found: dict[str, tuple[int, int]]) -> dict[str, bytes]:
    if "headers" not in found:
        return {}
    try:
        return table.split(header, found["headers"][0])
    except table.MalformedTable as error:
        raise properties.MalformedHeader(f"headers: {error}") from error


def _deaths(fields: dict[str, bytes]) -> list[dict[str, Any]]:
    raw = fields.get("x-death")
    if raw is None:
        return []
    value = table.decode_value(raw)
    return [death for death in value if isinstance(death, dict)] if isinstance(value, list) else []


def _count(death: dict[str, Any]) -> int:
    """Publishers can write what they like into `x-death`."""
    count = death.get("count")
    return count if isinstance(count, int) and 0 <= count < 2**62 else 0


def _encode_deaths(deaths: list[dict[str, Any]]) -> bytes:
    """As RabbitMQ types them: the count is a 64-bit number."""
    encoded = []
    for death in deaths:
        fields = {name: table.encode_value(value) for name, value in death.items()}
        fields["count"] = b"l" + _count(death).to_bytes(8, "big")
        encoded.append(b"F" + table.join(fields))
    return table.encode_array(encoded)
