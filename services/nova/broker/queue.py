"""A queue: takes messages, keeps them in order, hands them to consumers.

It knows its virtual host only through `Surroundings`: the clock, the journal, and where dead letters go. Every
message that entered ends in `release`, once: when it is settled, purged, or dropped, which may lead through the
dead-letter exchange (`discard`). That is where memory and journal are accounted for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from nova.broker.backlog import Backlog, PriorityBacklog
from nova.broker.consumer import Consumer, Ring

if TYPE_CHECKING:
    from nova.broker.arguments import QueueArguments
    from nova.broker.exchange import Binding
    from nova.broker.message import Message


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class Surroundings(Protocol):
    """What a queue needs of the broker around it."""

    now_s: float
    memory_bytes: int

    def next_number(self) -> int: ...

    def store(self, queue: Queue, message: Message) -> None:
        """Writes a persistent message of a durable queue into the journal."""

    def forget(self, message: Message) -> None:
        """Tells the journal that a stored message is settled."""

    def mark_delivered(self, message: Message) -> None:
        """Tells the journal that a stored message has been handed out once."""

    def bury(self, queue: Queue, message: Message, reason: str) -> None:
        """Dead-letters `message`, later in this turn, and then calls `queue.release`."""

    def wake_at(self, deadline_s: float, queue: Queue) -> Cancellable:
        """Calls `queue.on_time` at that moment."""


class Queue:
    """Times are of `surroundings.now_s`. `owner` is the connection that an exclusive queue belongs to."""

    def __init__(
        self,
        name: str,
        arguments: QueueArguments,
        surroundings: Surroundings,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        owner: object | None = None,
        vhost: str = "/",
    ) -> None:
        self.name = name
        self.vhost = vhost
        self.arguments = arguments
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner
        self.number = 0  # the journal's short name for it
        self.consumers = Ring(arguments.single_active_consumer)
        self.incoming: dict[int, Binding] = {}
        self.is_deleted = False
        self.unacked = 0
        self.ready_bytes = 0
        self.published = self.delivered = self.acked = self.redelivered = 0
        self.idle_since_s = surroundings.now_s
        self._around = surroundings
        self._has_consumers = False
        self._may_expire = False  # a message with a time to live has been here
        self._alarm: Cancellable | None = None
        self._alarm_s = 0.0
        highest = arguments.max_priority
        self.backlog: Backlog | PriorityBacklog = PriorityBacklog(highest) if highest else Backlog()
        self._is_bounded = arguments.max_length is not None or arguments.max_length_bytes is not None

    @property
    def ready(self) -> int:
        return len(self.backlog)

    # Messages come in.

    def put(self, message: Message) -> bool:
        """False where the queue is full and refuses (`reject-publish`)."""
        if self._is_bounded and self.arguments.overflow != "drop-head" and self._is_full_with(message):
            if self.arguments.overflow == "reject-publish-dlx":
                self._around.memory_bytes += message.size
                self.discard(message, "maxlen")
            return False
        around = self._around
        message.number = around.next_number()
        facts = message.facts
        if self.arguments.ttl_ms is not None or facts.ttl_ms is not None:
            self._set_expiry(message)
        self.published += 1
        around.memory_bytes += message.size
        self.ready_bytes += len(message.body)
        if self.durable and facts.is_persistent:
            around.store(self, message)
        self.backlog.append(message)
        # Whoever becomes able to take a message pumps: where others wait already, nobody is able now.
        if self._has_consumers and len(self.backlog) == 1:
            self.pump()
        if self._is_bounded:
            self._drop_overflow()
        if message.expires_s is not None:
            self._may_expire = True
            self._expire()
        return True

    def restore(self, message: Message) -> None:
        """Takes a message that the journal kept, as `put` but without its effects."""
        self._around.memory_bytes += message.size
        self.ready_bytes += len(message.body)
        self.backlog.append(message)
        if message.expires_s is not None:
            self._may_expire = True
            self._expire()

    def _set_expiry(self, message: Message) -> None:
        given = [ttl for ttl in (self.arguments.ttl_ms, message.facts.ttl_ms) if ttl is not None]
        message.expires_s = self._around.now_s + min(given) / 1000

    def _is_full_with(self, message: Message) -> bool:
        limits, size = self.arguments, self.ready_bytes + len(message.body)
        if limits.max_length is not None and len(self.backlog) >= limits.max_length:
            return True
        return limits.max_length_bytes is not None and size > limits.max_length_bytes

    def _drop_overflow(self) -> None:
        limits = self.arguments
        if limits.overflow != "drop-head":
            return
        while self.backlog and (
            (limits.max_length is not None and len(self.backlog) > limits.max_length)
            or (limits.max_length_bytes is not None and self.ready_bytes > limits.max_length_bytes)
        ):
            self.discard(self._take(), "maxlen")

    # Messages go out.

    def pump(self) -> None:
        """Hands ready messages to consumers until one of the two runs out."""
        backlog, next_ready = self.backlog, self.consumers.next_ready
        while backlog:
            consumer = next_ready()
            if consumer is None:
                return
            message = self.next_message()
            if message is None:
                return
            consumer.deliver(message)

    def next_message(self) -> Message | None:
        """Takes the first message that has not expired and counts it as delivered; the caller settles it."""
        while self.backlog:
            message = self._take()
            if message.expires_s is not None and self._is_over(message.expires_s):
                self.discard(message, "expired")
                continue
            self.unacked += 1
            self.delivered += 1
            if message.redelivered:
                self.redelivered += 1
            if message.segment is not None:
                self._around.mark_delivered(message)
            if self._may_expire:
                self._expire()  # another message is the first now, and it is the first that has a deadline
            return message
        return None

    def _is_over(self, expires_s: float) -> bool:
        """With a time to live of 0 a message is still handed to a consumer that waits for it."""
        now_s = self._around.now_s
        return expires_s < now_s or (expires_s == now_s and not self._has_consumers)

    def _take(self) -> Message:
        message = self.backlog.pop()
        self.ready_bytes -= len(message.body)
        return message

    def settle(self, message: Message) -> None:
        """A delivered message is done with: acknowledged, or delivered without acknowledgement."""
        self.unacked -= 1
        self.acked += 1
        self.release(message)

    def reject(self, message: Message) -> None:
        """A delivered message is refused and not wanted back."""
        self.unacked -= 1
        self.discard(message, "rejected")

    def put_back(self, message: Message) -> None:
        """A delivered message returns to its place; the caller pumps when it has returned them all."""
        self.unacked -= 1
        message.redelivered = True
        if self.is_deleted:
            self.release(message)
            return
        self.backlog.put_back(message)
        self.ready_bytes += len(message.body)
        if message.expires_s is not None:
            self._expire()

    def discard(self, message: Message, reason: str) -> None:
        """Drops a message that has left the backlog, by way of the dead-letter exchange where there is one."""
        if self.arguments.dead_letter_exchange is not None and not self.is_deleted:
            self._around.bury(self, message, reason)
        else:
            self.release(message)

    def release(self, message: Message) -> None:
        """The end of a message: nobody will ask for it again."""
        self._around.memory_bytes -= message.size
        if message.segment is not None:
            self._around.forget(message)

    def close(self) -> int:
        """The end of the queue: drops what is ready. The number of messages."""
        self.is_deleted = True
        if self._alarm is not None:
            self._alarm.cancel()
        return self.purge()

    def purge(self) -> int:
        """Drops what is ready; what was delivered stays with its channels. The number of messages."""
        messages = self.backlog.clear()
        self.ready_bytes = 0
        for message in messages:
            self.release(message)
        return len(messages)

    # Consumers.

    def add_consumer(self, consumer: Consumer) -> None:
        self.consumers.add(consumer)
        self._has_consumers = True

    def remove_consumer(self, consumer: Consumer) -> None:
        """The caller looks at `is_abandoned` afterwards, and pumps for the consumers that are left."""
        self.consumers.remove(consumer)
        self._has_consumers = len(self.consumers) > 0
        if not self._has_consumers:
            self.touch()

    @property
    def is_abandoned(self) -> bool:
        """An auto-delete queue whose last consumer is gone (asked only after one has gone)."""
        return self.auto_delete and not self._has_consumers

    # Time.

    def touch(self) -> None:
        """The queue is used: its `x-expires` begins anew."""
        self.idle_since_s = self._around.now_s
        if self.arguments.expires_ms is not None:
            self._arm(self._expires_at_s())

    def _expires_at_s(self) -> float:
        assert self.arguments.expires_ms is not None
        return self.idle_since_s + self.arguments.expires_ms / 1000

    def _arm(self, deadline_s: float) -> None:
        if self._alarm is not None:
            if self._alarm_s <= deadline_s:
                return
            self._alarm.cancel()
        self._alarm_s = deadline_s
        self._alarm = self._around.wake_at(deadline_s, self)

    def on_time(self) -> bool:
        """The moment of `wake_at` has come. True where the queue's life is over."""
        self._alarm = None
        self._expire()
        if self.arguments.expires_ms is not None and not self._has_consumers:
            if self._expires_at_s() <= self._around.now_s:
                return True
            self._arm(self._expires_at_s())
        return False

    def _expire(self) -> None:
        """Drops expired messages from the head and wakes up when the next one is due, as RabbitMQ does."""
        now_s = self._around.now_s
        while self.backlog:
            expires_s = self.backlog.first().expires_s
            if expires_s is None:
                return
            if expires_s > now_s:
                self._arm(expires_s)
                return
            self.discard(self._take(), "expired")
