"""The seam between RPC and a broker: messages, deliveries, and what one connection has to offer.

A `Session` is one connection from its first byte to its end; `link` makes another when it ends. There are three:
`fast` (amqp://, own codec), `portable` (whatever kombu speaks) and `fake` (no broker at all). Invariants of all:
`send`, `post`, `ack` and `requeue` never wait and never raise; only `run` reads; after its end a session is of no
use and is thrown away, with whatever it had not written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from nova.rpc.errors import RpcError
from nova.rpc.latch import Latch
from nova.rpc.topology import Plan


@dataclass(slots=True)
class Message:
    """What is published. `mandatory`: come back (`on_return`) if no queue takes it."""

    body: bytes
    exchange: str
    routing_key: str
    correlation_id: str | None = None
    reply_to: str | None = None
    persistent: bool = False
    mandatory: bool = False
    headers: dict[str, Any] | None = None


@dataclass(slots=True)
class Delivery:
    """What arrived, by which consumer. `tag` is what the session acknowledges it with."""

    session: Session | None
    consumer: str
    tag: Any
    redelivered: bool
    body: bytes
    correlation_id: str | None
    reply_to: str | None


class Post:
    """A message that the broker must have before `wait` returns; sent again on each new connection until then.

    `due_s` is the monotonic time at which its owner gives it up.
    """

    __slots__ = ("_settled", "due_s", "error", "message")

    def __init__(self, message: Message, due_s: float) -> None:
        self.message = message
        self.due_s = due_s
        self.error: RpcError | None = None
        self._settled = Latch()

    def settle(self, error: RpcError | None = None) -> None:
        """The broker has it, or refused it for good, or nobody waits any longer."""
        if not self._settled.ready():
            self.error = self.error or error
            self._settled.send()

    def is_settled(self) -> bool:
        return self._settled.ready()

    def wait(self) -> None:
        """Until it is settled. Raises the answer where that is an error."""
        self._settled.wait()
        if self.error is not None:
            raise self.error


class Handler(Protocol):
    """Who uses a link. All are called from the greenlet that reads, and must not wait."""

    def on_delivery(self, delivery: Delivery) -> None: ...

    def on_return(self, message_id: str | None, reason: str) -> None:
        """A mandatory message that was sent (not posted) reached no queue."""

    def on_up(self) -> None:
        """A new connection consumes."""

    def on_down(self, reason: str) -> None:
        """The connection is gone; un-acknowledged deliveries will come again."""


class Session(Protocol):
    """One connection."""

    def run(self, on_ready: Callable[[], None]) -> None:
        """Read until the connection ends; calls `on_ready` when all consumers are confirmed.

        Raises `LinkLost` or `OSError` at the end, except after `close`.
        """

    def send(self, message: Message) -> None:
        """Publish, without a promise."""

    def post(self, post: Post) -> None:
        """Publish; settles `post` once the broker has taken responsibility."""

    def ack(self, delivery: Delivery) -> None: ...

    def requeue(self, delivery: Delivery) -> None: ...

    def cancel(self, tags: frozenset[str], timeout_s: float) -> bool:
        """Stop these consumers; True once the broker has confirmed it."""

    def wait_writable(self, timeout_s: float) -> bool:
        """Wait while the broker takes nothing (memory alarm) or too much is waiting to be written."""

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is written; False if that took too long."""

    def close(self, timeout_s: float) -> None:
        """Write what waits, take leave of the broker if it answers in time, end `run`."""


Opener = Callable[[Plan, Handler], Session]


def with_attempt(message: Message, body: bytes, routing_key: str) -> Message:
    """The same message with another body and key, kept by the broker until it is acknowledged."""
    return dataclasses.replace(message, body=body, routing_key=routing_key, persistent=True, mandatory=False)
