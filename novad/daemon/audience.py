"""Who waits to hear something: requests that are answered later, and subscribers to events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from novad.core import wire
from novad.core.errors import NovadError
from novad.host.control import SKIP_BYTES, Connection

# What all that do not read in time may leave unread together, however many they are.
SKIP_ALL_BYTES = 8 * 1024 * 1024

Answer = dict[str, Any] | NovadError | None


@dataclass(slots=True)
class Waiter:
    """A request whose answer depends on processes: `answer()` is asked after each change until it has one.

    `send` delivers an answer that is more than a frame; `then` is called once it is given.
    """

    connection: Connection
    request: wire.Request
    answer: Callable[[], Answer]
    then: Callable[[], None] | None = None
    forget: Callable[[], None] = lambda: None
    send: Callable[[dict[str, Any]], None] | None = None


@dataclass(slots=True)
class Subscriber:
    """A client that gets events. `lines` holds the names whose output it wants."""

    connection: Connection
    request: wire.Request
    states: bool
    lines: set[str]
    skipped: dict[str, int] = field(default_factory=dict)

    def send(self, event: dict[str, Any]) -> None:
        self.connection.send(wire.Event(self.request.id, event))

    def is_behind(self, among: int) -> bool:
        """It does not read in time, one `among` so many: it loses lines, and is told how many."""
        return self.connection.unread_bytes > min(SKIP_BYTES, SKIP_ALL_BYTES // among)

    def skip(self, name: str, lines: int) -> None:
        self.skipped[name] = self.skipped.get(name, 0) + lines

    def send_lines(self, name: str, text: bytes) -> None:
        self.confess()
        for part in _parts(text):
            self.send({"type": "lines", "name": name, "text": part.decode(errors="surrogateescape")})

    def confess(self) -> None:
        """Say what was left out: before the next lines, or where none come, once the client has caught up."""
        skipped, self.skipped = self.skipped, {}
        for name, count in skipped.items():
            self.send({"type": "skipped", "name": name, "lines": count})


def _parts(text: bytes, limit: int = wire.MAX_FRAME // 8) -> Iterable[bytes]:
    """Whole lines, in pieces that fit a frame even when every byte is escaped in JSON."""
    while len(text) > limit:
        cut = text.rfind(b"\n", 0, limit) + 1 or text.find(b"\n") + 1 or len(text)
        yield text[:cut]
        text = text[cut:]
    if text:
        yield text


class Audience:
    """All waiters and subscribers; a connection that closes takes its own with it."""

    def __init__(self, on_followed: Callable[[set[str]], None]) -> None:
        self._waiters: list[Waiter] = []
        self._subscribers: list[Subscriber] = []
        self._on_followed = on_followed

    def wait(self, waiter: Waiter) -> None:
        """Answer now if there is an answer, else later."""
        if not self._try(waiter):
            self._waiters.append(waiter)
            waiter.forget = lambda: self._drop_waiter(waiter)
            waiter.connection.on_close.append(waiter.forget)

    def _drop_waiter(self, waiter: Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _try(self, waiter: Waiter) -> bool:
        answer = waiter.answer()
        if answer is None:
            return False
        if isinstance(answer, NovadError):
            waiter.connection.fail(waiter.request, answer)
        elif waiter.send is not None:
            waiter.send(answer)
        else:
            waiter.connection.reply(waiter.request, answer)
        if waiter.then is not None:
            waiter.then()
        return True

    def check(self) -> None:
        """Something changed: answer whom that concerns."""
        self._waiters = [waiter for waiter in self._waiters if not self._is_answered(waiter)]

    def _is_answered(self, waiter: Waiter) -> bool:
        answered = self._try(waiter)
        if answered and waiter.forget in waiter.connection.on_close:
            # A connection may live for days and ask thousands of times.
            waiter.connection.on_close.remove(waiter.forget)
        return answered

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)
        subscriber.connection.on_close.append(lambda: self._drop_subscriber(subscriber))
        subscriber.connection.on_taken.append(subscriber.confess)
        self._followed()

    def _drop_subscriber(self, subscriber: Subscriber) -> None:
        if subscriber in self._subscribers:
            self._subscribers.remove(subscriber)
        self._followed()

    def _followed(self) -> None:
        self._on_followed(set().union(*(subscriber.lines for subscriber in self._subscribers)))

    def tell(self, event: dict[str, Any]) -> None:
        """An event for everybody who asked for states."""
        for subscriber in list(self._subscribers):
            if subscriber.states:
                subscriber.send(event)

    def tell_lines(self, name: str, text: bytes) -> None:
        lines = 0
        followers = [subscriber for subscriber in self._subscribers if subscriber.lines]
        for subscriber in followers:
            if name not in subscriber.lines:
                continue
            if subscriber.is_behind(len(followers)):
                # Counted once for all: a flood must not cost more with every follower that stands still.
                lines = lines or text.count(b"\n")
                subscriber.skip(name, lines)
            else:
                subscriber.send_lines(name, text)
