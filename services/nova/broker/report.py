"""What a broker is doing, as rows of plain values: what `nova-manage broker` and metrics show.

Pure. Counters count from the broker's start; `rates` makes numbers per second out of two samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nova.broker.broker import Broker
from nova.broker.queue import Queue
from nova.broker.vhost import VirtualHost
from nova.exposition import Sample

Row = dict[str, Any]

COUNTERS = ("published", "delivered", "acked", "redelivered")


def queues(broker: Broker) -> list[Row]:
    return [_queue(vhost, queue) for vhost in _vhosts(broker) for _, queue in sorted(vhost.queues.items())]


def _queue(vhost: VirtualHost, queue: Queue) -> Row:
    return {
        "vhost": vhost.name,
        "name": queue.name,
        "durable": queue.durable,
        "exclusive": queue.owner is not None,
        "auto_delete": queue.auto_delete,
        "arguments": queue.arguments.raw,
        "ready": queue.ready,
        "unacked": queue.unacked,
        "ready_bytes": queue.ready_bytes,
        "consumers": len(queue.consumers),
        "published": queue.published,
        "delivered": queue.delivered,
        "acked": queue.acked,
        "redelivered": queue.redelivered,
    }


def exchanges(broker: Broker) -> list[Row]:
    return [
        {
            "vhost": vhost.name,
            "name": exchange.name,
            "type": exchange.type,
            "durable": exchange.durable,
            "auto_delete": exchange.auto_delete,
            "internal": exchange.internal,
            "arguments": exchange.arguments,
            "bindings": len(exchange.bindings),
            "published": exchange.published,
        }
        for vhost in _vhosts(broker)
        for _, exchange in sorted(vhost.exchanges.items())
    ]


def bindings(broker: Broker) -> list[Row]:
    """The default exchange's are left out: every queue has one, by its own name."""
    return [
        {
            "vhost": vhost.name,
            "source": binding.source.name,
            "destination": binding.destination.name,
            "to": "queue" if isinstance(binding.destination, Queue) else "exchange",
            "routing_key": binding.routing_key,
            "arguments": binding.arguments,
        }
        for vhost in _vhosts(broker)
        for _, exchange in sorted(vhost.exchanges.items())
        for binding in exchange.bindings.values()
    ]


def connections(broker: Broker) -> list[Row]:
    return [
        {
            "peer": connection.peer,
            "name": _client(connection.client, "connection_name"),
            "product": _client(connection.client, "product"),
            "user": connection.user,
            "vhost": connection.vhost.name,
            "state": "blocked" if connection.is_blocked else connection.stage,
            "channels": len(connection.channels),
            "connected_s": round(broker.now_s - connection.connected_at_s, 3),
            "received_bytes": connection.received_bytes,
            "sent_bytes": connection.output.sent_bytes,
        }
        for connection in broker.connections
    ]


def _client(properties: Row, name: str) -> str:
    value = properties.get(name)
    return value if isinstance(value, str) else ""


def consumers(broker: Broker) -> list[Row]:
    return [
        {
            "vhost": vhost.name,
            "queue": queue.name,
            "tag": consumer.tag,
            "peer": consumer.channel.connection.peer,
            "channel": consumer.channel.number,
            "no_ack": consumer.no_ack,
            "exclusive": consumer.is_exclusive,
            "prefetch": consumer.limit,
            "priority": consumer.priority,
            "unacked": consumer.unacked,
        }
        for vhost in _vhosts(broker)
        for _, queue in sorted(vhost.queues.items())
        for consumer in queue.consumers
    ]


def overview(broker: Broker) -> list[Row]:
    """One row: sums, sizes and limits in bytes."""
    rows = queues(broker)
    total = {name: sum(row[name] for row in rows) for name in ("ready", "unacked", "consumers", *COUNTERS)}
    return [
        {
            **total,
            "queues": len(rows),
            "exchanges": sum(len(vhost.exchanges) for vhost in broker.vhosts.values()),
            "connections": len(broker.connections),
            "vhosts": sorted(broker.vhosts),
            "memory_bytes": broker.memory_bytes,
            "memory_limit_bytes": broker.settings.memory_limit_bytes,
            "journal_bytes": 0 if broker.journal is None else broker.journal.size_bytes,
            "journal_limit_bytes": broker.settings.disk_limit_bytes,
            "journal_fault": broker.journal_fault,
            "blocked": broker.blocked_because,
        }
    ]


KINDS: dict[str, Callable[[Broker], list[Row]]] = {
    "overview": overview,
    "queues": queues,
    "exchanges": exchanges,
    "bindings": bindings,
    "connections": connections,
    "consumers": consumers,
}


def samples(broker: Broker) -> Iterator[Sample]:
    """The same figures as metrics; a queue's labels are its virtual host and its name."""
    for row in queues(broker):
        labels = {"vhost": row["vhost"], "queue": row["name"]}
        for name in ("ready", "unacked", "consumers"):
            yield f"nova_broker_queue_{name}", labels, row[name]
        for name in COUNTERS:
            yield f"nova_broker_queue_{name}_total", labels, row[name]
    for row in exchanges(broker):
        labels = {"vhost": row["vhost"], "exchange": row["name"]}
        yield "nova_broker_exchange_bindings", labels, row["bindings"]
        yield "nova_broker_exchange_published_total", labels, row["published"]
    (whole,) = overview(broker)
    for name in ("connections", "memory_bytes", "memory_limit_bytes", "journal_bytes", "journal_limit_bytes"):
        yield f"nova_broker_{name}", {}, whole[name]
    yield "nova_broker_blocked", {}, float(whole["blocked"] is not None)


def rates(earlier: Sequence[Row], later: Sequence[Row], seconds: float) -> list[Row]:
    """The rows of `later` with `<counter>_per_s` beside each counter; a queue that is new counts from 0."""
    before = {(row["vhost"], row["name"]): row for row in earlier}
    rows = []
    for row in later:
        old = before.get((row["vhost"], row["name"]), {})
        speeds = {
            f"{name}_per_s": round(max(0, row[name] - old.get(name, 0)) / seconds, 1)
            for name in COUNTERS
            if name in row
        }
        rows.append({**row, **speeds})
    return rows


# What a terminal of 80 columns has room for: the heading of a table's column -> the row's key.
BRIEF: dict[str, dict[str, str]] = {
    "queues": {
        "name": "name",
        "ready": "ready",
        "unacked": "unacked",
        "consumers": "consumers",
        "in/s": "published_per_s",
        "out/s": "delivered_per_s",
    },
    "exchanges": {
        "name": "name",
        "type": "type",
        "durable": "durable",
        "bindings": "bindings",
        "published": "published",
        "in/s": "published_per_s",
    },
    "bindings": {"source": "source", "destination": "destination", "routing_key": "routing_key"},
    "connections": {
        "peer": "peer",
        "name": "name",
        "state": "state",
        "received": "received_bytes",
        "sent": "sent_bytes",
    },
    "consumers": {
        "queue": "queue",
        "tag": "tag",
        "peer": "peer",
        "prefetch": "prefetch",
        "unacked": "unacked",
    },
}


def brief(kind: str, rows: Sequence[Row]) -> list[Row]:
    """The rows with the keys that `BRIEF` names, where they are there; of which virtual host, if not all are of `/`."""
    columns = BRIEF[kind]
    if any(row["vhost"] != "/" for row in rows):
        columns = {"vhost": "vhost", **columns}
    return [{heading: row[key] for heading, key in columns.items() if key in row} for row in rows]


def _vhosts(broker: Broker) -> Iterator[VirtualHost]:
    return (vhost for _, vhost in sorted(broker.vhosts.items()))
