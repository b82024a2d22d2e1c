"""A consumer, and the ring of a queue's consumers that decides who is next.

Who may take a message: its channel flows, its connection's output is not piled up, and its prefetch (or its
channel's, for `global`) is not used up. Higher `x-priority` goes first, equals take turns; with a single active
consumer only the first one is served and the others wait for its end.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nova.broker import protocol

if TYPE_CHECKING:
    from nova.broker.channel import Channel
    from nova.broker.message import Message
    from nova.broker.queue import Queue

_DELIVER = protocol.U32.pack(protocol.BASIC_DELIVER)
_U64 = protocol.U64.pack
_FLAGS = (b"\0", b"\1")


@functools.lru_cache(maxsize=1024)
def _names(exchange: str, routing_key: str) -> bytes:
    """Where a message was published, encoded: a few places are where almost all messages come from."""
    return protocol.shortstr(exchange) + protocol.shortstr(routing_key)


class Consumer:
    """`limit` is the prefetch count, 0 for none; `unacked` counts what was delivered and not settled."""

    __slots__ = (
        "_prefix",
        "channel",
        "is_exclusive",
        "limit",
        "no_ack",
        "priority",
        "queue",
        "tag",
        "unacked",
    )

    def __init__(
        self,
        channel: Channel,
        tag: str,
        queue: Queue | None,
        *,
        no_ack: bool,
        limit: int = 0,
        is_exclusive: bool = False,
        priority: int = 0,
    ) -> None:
        self.channel = channel
        self.tag = tag
        self.queue = queue  # None: the pseudo-queue of direct reply-to
        self.no_ack = no_ack
        self.limit = limit
        self.is_exclusive = is_exclusive
        self.priority = priority
        self.unacked = 0
        self._prefix = _DELIVER + protocol.shortstr(tag)

    def is_ready(self) -> bool:
        channel = self.channel
        if channel.connection.output.is_congested:
            return False
        if self.no_ack:
            return True
        if self.limit and self.unacked >= self.limit:
            return False
        return not channel.prefetch_limit or len(channel.unacked) < channel.prefetch_limit

    def deliver(self, message: Message) -> None:
        channel = self.channel
        tag = channel.next_delivery_tag()
        channel.send_content(
            b"%b%b%b%b"
            % (
                self._prefix,
                _U64(tag),
                _FLAGS[message.redelivered],
                _names(message.exchange, message.routing_key),
            ),
            message,
        )
        if self.no_ack:
            if self.queue is not None:
                self.queue.settle(message)
        else:
            self.unacked += 1
            channel.remember(tag, message, self)


class Ring:
    """The consumers of one queue."""

    __slots__ = ("_lines", "_single_active")

    def __init__(self, single_active: bool) -> None:
        self._single_active = single_active
        self._lines: list[tuple[int, deque[Consumer]]] = []

    def __len__(self) -> int:
        return sum(len(line) for _, line in self._lines)

    def __iter__(self) -> Iterator[Consumer]:
        for _, line in self._lines:
            yield from line

    def add(self, consumer: Consumer) -> None:
        priority = 0 if self._single_active else consumer.priority
        for index, (other, line) in enumerate(self._lines):
            if other == priority:
                line.append(consumer)
                return
            if other < priority:
                self._lines.insert(index, (priority, deque((consumer,))))
                return
        self._lines.append((priority, deque((consumer,))))

    def remove(self, consumer: Consumer) -> None:
        for index, (_, line) in enumerate(self._lines):
            if consumer in line:
                line.remove(consumer)
                if not line:
                    del self._lines[index]
                return

    def next_ready(self) -> Consumer | None:
        """The consumer whose turn it is, None where nobody can take a message now."""
        for _, line in self._lines:
            if self._single_active:
                return line[0] if line[0].is_ready() else None
            for _ in range(len(line)):
                consumer = line[0]
                line.rotate(-1)
                if consumer.is_ready():
                    return consumer
        return None
