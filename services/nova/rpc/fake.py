"""A broker inside the process: for tests of services, and for `--fake_rabbit`.

It keeps what a caller and a service rely on: acknowledgement and redelivery, prefetch, mandatory, fanout,
exclusive queues that go with their session. It has the faults that a broker has, as methods: `drop_sessions`,
`refuse`, `block`, `lose_next_replies`. It keeps nothing on disk and speaks to this process only.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from nova import green
from nova.rpc import topology
from nova.rpc.errors import LinkLost, NoSuchTopic
from nova.rpc.topology import Consumer, Plan
from nova.rpc.transport import Delivery, Handler, Message, Post


@dataclass(slots=True)
class _Entry:
    """A message in a queue."""

    message: Message
    redelivered: bool = False


@dataclass(slots=True)
class _Queue:
    name: str
    owner: FakeSession | None = None
    entries: deque[_Entry] = field(default_factory=deque)
    consumers: list[tuple[FakeSession, Consumer]] = field(default_factory=list)


class FakeBroker:
    """Queues and bindings; `broker` is the one that `open_session` uses."""

    def __init__(self) -> None:
        self.queues: dict[str, _Queue] = {}
        self.sessions: list[FakeSession] = []
        self._bindings: set[tuple[str, str, str]] = set()
        self._is_refusing = False
        self._is_blocked = False
        self._unblocked = green.Event()
        self._replies_to_lose = 0

    # Faults

    def drop_sessions(self) -> None:
        """Every connection breaks; un-acknowledged messages are queued again."""
        for session in list(self.sessions):
            session.end("dropped")

    def refuse(self, is_refusing: bool = True) -> None:
        """No new connection until `refuse(False)`."""
        self._is_refusing = is_refusing

    def block(self, is_blocked: bool = True) -> None:
        """Take no messages, as with a memory alarm, until `block(False)`."""
        self._is_blocked = is_blocked
        if not is_blocked:
            event, self._unblocked = self._unblocked, green.Event()
            event.send()

    def lose_next_replies(self, count: int) -> None:
        """The next replies vanish on their way."""
        self._replies_to_lose = count

    def depth(self, queue: str) -> int:
        """Messages that wait in a queue."""
        return len(self.queues[queue].entries) if queue in self.queues else 0

    # What sessions do

    def connect(self, session: FakeSession, plan: Plan) -> None:
        if self._is_refusing:
            raise LinkLost("refused")
        self.sessions.append(session)
        for queue in plan.queues:
            known = self.queues.setdefault(queue.name, _Queue(queue.name))
            known.owner = session if queue.exclusive else None
            self._bindings |= {(exchange, key, queue.name) for exchange, key in queue.bindings}

    def consume(self, session: FakeSession, consumer: Consumer) -> None:
        name = session.reply_queue if consumer.queue == topology.DIRECT_REPLY else consumer.queue
        queue = self.queues.setdefault(name, _Queue(name, session))
        queue.consumers.append((session, consumer))
        self._pump(queue)

    def cancel(self, session: FakeSession, tags: frozenset[str]) -> None:
        for queue in self.queues.values():
            queue.consumers = [
                pair for pair in queue.consumers if pair[0] is not session or pair[1].tag not in tags
            ]

    def wait_unblocked(self, timeout_s: float) -> bool:
        if self._is_blocked:
            self._unblocked.wait(timeout_s)
        return not self._is_blocked

    def route(self, message: Message) -> bool:
        """True if a queue took it."""
        if message.exchange == "":
            names = [message.routing_key] if message.routing_key in self.queues else []
            if message.routing_key.startswith("reply_") and self._replies_to_lose:
                self._replies_to_lose -= 1
                return True
        else:
            is_fanout = message.exchange.endswith("_fanout")
            names = [
                name
                for exchange, key, name in self._bindings
                if exchange == message.exchange and (is_fanout or key == message.routing_key)
            ]
        for name in names:
            self.queues[name].entries.append(_Entry(message))
            self._pump(self.queues[name])
        return bool(names)

    def requeue(self, name: str, message: Message) -> None:
        if name in self.queues:
            self.queues[name].entries.appendleft(_Entry(message, redelivered=True))
            self._pump(self.queues[name])

    def pump(self, name: str) -> None:
        if name in self.queues:
            self._pump(self.queues[name])

    def _pump(self, queue: _Queue) -> None:
        """Give out what consumers may take, in turn."""
        idle = 0
        while queue.entries and idle < len(queue.consumers):
            session, consumer = queue.consumers[0]
            queue.consumers.append(queue.consumers.pop(0))
            if session.can_take(consumer):
                idle = 0
                session.take(queue.name, consumer, queue.entries.popleft())
            else:
                idle += 1

    def disconnect(self, session: FakeSession) -> None:
        if session not in self.sessions:
            return
        self.sessions.remove(session)
        for queue in list(self.queues.values()):
            queue.consumers = [pair for pair in queue.consumers if pair[0] is not session]
            if queue.owner is session:
                del self.queues[queue.name]
                self._bindings = {binding for binding in self._bindings if binding[2] != queue.name}


broker = FakeBroker()


def open_session(plan: Plan, handler: Handler) -> FakeSession:
    """A session at `broker`. Raises `LinkLost` while that refuses."""
    return FakeSession(broker, plan, handler)


class FakeSession:
    """See `transport.Session`."""

    def __init__(self, at: FakeBroker, plan: Plan, handler: Handler) -> None:
        self.reply_queue = f"reply_{id(self):x}"
        self._broker = at
        self._plan = plan
        self._handler = handler
        self._tags = itertools.count(1)
        self._unacked: dict[int, tuple[str, str, Message]] = {}
        self._ended: green.Event = green.Event()
        at.connect(self, plan)

    def run(self, on_ready: Callable[[], None]) -> None:
        on_ready()
        for consumer in self._plan.consumers:
            self._broker.consume(self, consumer)
        reason = self._ended.wait()
        if reason is not None:
            raise LinkLost(reason)

    def end(self, reason: str | None) -> None:
        if self._ended.ready():
            return
        self._broker.disconnect(self)
        unacked, self._unacked = self._unacked, {}
        for name, _, message in reversed(unacked.values()):
            self._broker.requeue(name, message)
        self._ended.send(reason)

    def can_take(self, consumer: Consumer) -> bool:
        if consumer.no_ack or not consumer.prefetch:
            return True
        return sum(tag == consumer.tag for _, tag, _ in self._unacked.values()) < consumer.prefetch

    def take(self, name: str, consumer: Consumer, entry: _Entry) -> None:
        number, message = next(self._tags), entry.message
        if not consumer.no_ack:
            self._unacked[number] = (name, consumer.tag, message)
        delivery = Delivery(
            self, consumer.tag, number, entry.redelivered, message.body, message.correlation_id, message.reply_to
        )
        green.schedule(self._hand_over, delivery)

    def _hand_over(self, delivery: Delivery) -> None:
        if not self._ended.ready():
            self._handler.on_delivery(delivery)

    def send(self, message: Message) -> None:
        if self._ended.ready():
            return
        if message.reply_to == topology.DIRECT_REPLY:
            message.reply_to = self.reply_queue
        if not self._broker.route(message) and message.mandatory:
            green.schedule(self._handler.on_return, message.correlation_id, f"no route: {message.routing_key}")

    def post(self, post: Post) -> None:
        green.spawn_n(self._take_over, post)

    def _take_over(self, post: Post) -> None:
        while not self._broker.wait_unblocked(1.0):
            pass
        if self._ended.ready() or post.is_settled():
            return
        taken = self._broker.route(post.message) or not post.message.mandatory
        post.settle(None if taken else NoSuchTopic(f"nobody listens on {post.message.routing_key}"))

    def ack(self, delivery: Delivery) -> None:
        name, _, _ = self._unacked.pop(delivery.tag, ("", "", None))
        self._broker.pump(name)

    def requeue(self, delivery: Delivery) -> None:
        name, _, message = self._unacked.pop(delivery.tag, ("", "", None))
        if message is not None:
            self._broker.requeue(name, message)

    def cancel(self, tags: frozenset[str], timeout_s: float) -> bool:
        self._broker.cancel(self, tags)
        return True

    def wait_writable(self, timeout_s: float) -> bool:
        return self._broker.wait_unblocked(timeout_s)

    def flush(self, timeout_s: float) -> bool:
        return True

    def close(self, timeout_s: float) -> None:
        self.end(None)
