"""A call in a service, from its beginning to its end: what `Server.inflight` lists."""

from __future__ import annotations

import time

from nova.rpc import wire
from nova.rpc.errors import MalformedMessage
from nova.rpc.journal import Row
from nova.rpc.topology import FANOUT
from nova.rpc.transport import Delivery


class Call:
    """`started_s` is monotonic. Everyone in `deliveries` gets the reply: the request may have come twice."""

    __slots__ = ("alive_due_s", "body", "deliveries", "items", "redelivered", "request", "started_s")

    def __init__(self, request: wire.Request, delivery: Delivery) -> None:
        self.request = request
        self.body = delivery.body
        self.deliveries = [delivery]
        self.items: list[bytes] = []
        self.started_s = time.monotonic()
        self.alive_due_s = float("inf")
        self.redelivered = delivery.redelivered or request.attempt > 0

    @classmethod
    def of_row(cls, row: Row) -> Call:
        """A call that an earlier process began; its message was acknowledged then."""
        delivery = Delivery(None, row.consumer, None, True, row.body, row.correlation_id, row.reply_to)
        try:
            request = wire.decode_request(row.body)
        except MalformedMessage:  # a file that was tampered with: nothing to run, but its caller hears of it
            request = wire.Request("unreadable", {})
        request.unique_id = row.unique_id
        return cls(request, delivery)

    def row(self, delivery: Delivery) -> Row:
        """What the journal keeps of it."""
        return Row(self.id, delivery.consumer, self.body, delivery.correlation_id, delivery.reply_to)

    @property
    def id(self) -> str:
        return self.request.unique_id

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def request_id(self) -> str | None:
        return self.request.context.get("request_id")

    @property
    def is_fanout(self) -> bool:
        return self.deliveries[0].consumer == FANOUT

    @property
    def kind(self) -> str:
        """call, cast or fanout."""
        if self.request.msg_id is not None:
            return "call"
        return "fanout" if self.is_fanout else "cast"

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.started_s

    def __repr__(self) -> str:
        return f"<{self.kind} {self.method} {self.id} {self.age_s:.1f} s>"
