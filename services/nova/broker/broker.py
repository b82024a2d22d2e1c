"""The broker: virtual hosts, connections, time, memory, and the end of a turn.

Sans I/O. A front end (`loop`) sets the time, feeds bytes to connections, calls `end_turn`, and sends what the
connections have collected; `next_deadline_s` says when `run_due` must be called again. Within a turn the journal
only collects; `end_turn` writes it and then lets the publishers' confirms out, so that whatever a client learns
has been written before.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nova.broker import dead_letter
from nova.broker.arguments import QueueArguments, alternate_exchange
from nova.broker.confirms import Confirms
from nova.broker.exchange import Binding, Exchange
from nova.broker.journal import Journal
from nova.broker.message import Message, facts_of
from nova.broker.queue import Queue
from nova.broker.segment import Segment, Stored, decode_content
from nova.broker.vhost import VirtualHost

if TYPE_CHECKING:
    from nova.broker.channel import Channel
    from nova.broker.connection import Connection

LOG = logging.getLogger("nova.broker")

RETRY_S = 1.0  # after the journal could not be written
OVERFULL = 2.0  # times the memory limit: who publishes here is not read, even if it acknowledges
LOW_WATER = 0.8  # of the memory limit: publishers go on only below it, so that they do not flap


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes in bytes, times in seconds; 0 for a time means never."""

    memory_limit_bytes: int = 1024 * 1024 * 1024
    disk_limit_bytes: int = 2 * 1024 * 1024 * 1024
    message_limit_bytes: int = 128 * 1024 * 1024  # RabbitMQ's max_message_size
    channel_max: int = 2047
    heartbeat_s: int = 60
    handshake_timeout_s: float = 10.0
    consumer_timeout_s: float = 1800.0
    is_strict: bool = True


class Deadline:
    """Something that will be done, unless it is cancelled."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Lets go of what it would have needed, too."""
        self.action = None


class Broker:
    def __init__(
        self,
        users: dict[str, str],
        *,
        settings: Settings | None = None,
        journal: Journal | None = None,
        vhosts: tuple[str, ...] = ("/",),
        now_s: float = 0.0,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """`users` maps names to passwords. A journal is read in here."""
        self.settings = settings or Settings()
        self.is_strict = self.settings.is_strict
        self.users = users
        self.now_s = now_s
        self.memory_bytes = 0
        self.connections: dict[Connection, None] = {}
        self.dirty: list[Any] = []  # connections, administrators' too, that the front end must look at
        self.reply_channels: dict[str, Channel] = {}
        self.confirms = Confirms()
        # A front end that can have files synced beside the loop says how; `note_synced` is its answer.
        self.syncer: Callable[[list[int]], None] | None = None
        self.blocked_because: str | None = None
        self.is_disk_full = False  # persistent messages must be refused
        self.journal = journal
        self._wall_s = wall_s
        self._numbers = itertools.count(1)
        self._sequence = itertools.count()
        self._deadlines: list[tuple[float, int, Deadline]] = []
        self._resuming: dict[Connection, None] = {}
        self._dead: deque[tuple[Queue, Message, str]] = deque()
        self.journal_fault: str | None = None
        self._retry_at_s = 0.0
        self.vhosts = {name: VirtualHost(name, self) for name in vhosts}
        if journal is not None:
            self._restore(journal)

    # Time.

    def call_at(self, deadline_s: float, action: Callable[[], None]) -> Deadline:
        deadline = Deadline(action)
        heapq.heappush(self._deadlines, (deadline_s, next(self._sequence), deadline))
        return deadline

    def wake_at(self, deadline_s: float, queue: Queue) -> Deadline:
        return self.call_at(deadline_s, lambda: self._on_queue_time(queue))

    def _on_queue_time(self, queue: Queue) -> None:
        if queue.on_time():
            self.vhosts[queue.vhost].delete_queue(queue)

    def next_deadline_s(self) -> float | None:
        """The moment at which `run_due` has something to do; None where nothing is planned."""
        while self._deadlines and self._deadlines[0][2].action is None:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def run_due(self) -> None:
        while self._deadlines and self._deadlines[0][0] <= self.now_s:
            action = heapq.heappop(self._deadlines)[2].action
            if action is not None:
                action()

    # What queues and virtual hosts need of the broker (`queue.Surroundings`, `vhost.Around`).

    def next_number(self) -> int:
        return next(self._numbers)

    def store(self, queue: Queue, message: Message) -> None:
        if self.journal is None:
            return
        expires_ms = 0
        if message.expires_s is not None:
            expires_ms = int((message.expires_s - self.now_s + self._wall_s()) * 1000) or 1
        self.journal.store(message, queue.number, expires_ms)

    def forget(self, message: Message) -> None:
        if self.journal is not None:
            self.journal.forget(message)

    def mark_delivered(self, message: Message) -> None:
        if self.journal is not None:
            self.journal.mark_delivered(message)

    def define(self, kind: str, **fields: Any) -> None:
        if self.journal is not None:
            self.journal.definitions.add(kind, fields)

    def bury(self, queue: Queue, message: Message, reason: str) -> None:
        # Later in the turn, not here: a chain of dead-letter queues would otherwise nest as deep as it is long.
        self._dead.append((queue, message, reason))

    def _bury_all(self) -> None:
        while self._dead:
            queue, message, reason = self._dead.popleft()
            try:
                self._publish_dead(queue, message, reason)
            except ValueError:
                pass  # headers that are no table: nothing that could be published again
            queue.release(message)

    def _publish_dead(self, queue: Queue, message: Message, reason: str) -> None:
        vhost = self.vhosts[queue.vhost]
        exchange = queue.arguments.dead_letter_exchange
        if exchange and exchange not in vhost.exchanges:
            return
        dead = dead_letter.letter(message, queue, reason, int(self._wall_s()))
        targets = vhost.route(dead.exchange, dead.routing_key, dead.header)
        if reason != "rejected":
            targets = tuple(each for each in targets if not dead_letter.is_circle(message, each.name))
        vhost.put(targets, dead)

    # Publishers.

    @property
    def is_overfull(self) -> bool:
        """Publishers that are told and read nevertheless have gone too far."""
        return self.memory_bytes > OVERFULL * self.settings.memory_limit_bytes

    def _watch_memory(self) -> None:
        limit = self.settings.memory_limit_bytes
        if self.blocked_because is None:
            if self.memory_bytes > limit:
                self._block("low on memory")
        elif self.memory_bytes < LOW_WATER * limit:
            self.blocked_because = None
            LOG.warning("publishers go on")
            for connection in list(self.connections):
                connection.unblock()

    def _block(self, reason: str) -> None:
        self.blocked_because = reason
        LOG.warning("publishers are held: %s (%d bytes of messages)", reason, self.memory_bytes)
        for connection in list(self.connections):
            if connection.has_published:
                connection.block(reason)

    # The end of a turn.

    def resume_later(self, connection: Connection) -> None:
        """Calls `connection.resume` in the next turn, so that what it sends comes behind the journal's write."""
        self._resuming[connection] = None

    @property
    def has_work(self) -> bool:
        """Whether another turn has something to do without an event."""
        return bool(self.dirty or self._resuming)

    def end_turn(self) -> None:
        """Consumers that go on, dead letters, the journal, then the confirms that depend on it."""
        resuming, self._resuming = self._resuming, {}
        for connection in resuming:
            connection.resume()
        while True:
            self._bury_all()
            is_written = self._flush()
            self.confirms.end_turn(is_written, self.syncer is None or self.journal is None)
            if not self._dead:
                break
        if self.syncer is not None and self.journal is not None and self.confirms.begin_sync():
            self.syncer(self.journal.begin_sync())
        self._watch_memory()

    def _flush(self) -> bool:
        if self.journal is None:
            return True
        if self.journal_fault is not None and self.now_s < self._retry_at_s:
            return False
        needs_sync = self.confirms.take_needs_sync()
        try:
            self.journal.flush(needs_sync and self.syncer is None)
        except OSError as error:
            self._note_fault(error)
            return False
        if self.journal_fault is not None:
            LOG.warning("the journal is written again")
        self.journal_fault = None
        self.is_disk_full = self.journal.size_bytes >= self.settings.disk_limit_bytes
        return True

    def _note_fault(self, error: OSError) -> None:
        if self.journal_fault is None:
            LOG.error("the journal cannot be written: %s; persistent messages are refused", error)
        self.journal_fault = error.strerror or str(error)
        self.is_disk_full = True
        self._retry_at_s = self.now_s + RETRY_S
        self.call_at(self._retry_at_s, lambda: None)

    def note_synced(self, error: OSError | None) -> None:
        """What `syncer` was asked for is on disk, or could not be written."""
        assert self.journal is not None
        self.journal.end_sync(error is None)
        if error is not None:
            self._note_fault(error)
        self.confirms.end_sync(error is None)

    def close(self) -> None:
        """Writes what is left, to the disk. Raises `OSError`."""
        if self.journal is not None:
            self.journal.flush(sync=True)
            self.journal.close()

    # The beginning.

    def _restore(self, journal: Journal) -> None:
        by_number: dict[int, Queue] = {}
        for kind, fields in journal.definitions:
            vhost = self.vhosts.get(fields["vhost"])
            if vhost is None:
                vhost = self.vhosts[fields["vhost"]] = VirtualHost(fields["vhost"], self)
            if kind == "exchange":
                vhost.add_exchange(_exchange(fields))
            elif kind == "queue":
                queue = self._queue(fields)
                by_number[queue.number] = queue
                vhost.add_queue(queue)
            else:
                _bind(vhost, fields)
        highest = max(by_number, default=0)
        for segment, stored in journal.messages():
            highest = max(highest, stored.number)
            self._restore_message(by_number.get(stored.queue), segment, stored)
        self._numbers = itertools.count(highest + 1)
        for queue in by_number.values():
            queue.touch()
        self._bury_all()

    def _queue(self, fields: dict[str, Any]) -> Queue:
        arguments = QueueArguments(fields["arguments"], f"queue '{fields['name']}'")
        name, auto_delete = fields["name"], fields["auto_delete"]
        queue = Queue(name, arguments, self, durable=True, auto_delete=auto_delete, vhost=fields["vhost"])
        queue.number = fields["number"]
        return queue

    def _restore_message(self, queue: Queue | None, segment: Segment, stored: Stored) -> None:
        exchange, routing_key, header, body = decode_content(stored.payload)
        message = Message(exchange, routing_key, header, body, facts_of(header))
        message.number = stored.number
        message.segment = segment
        message.redelivered = stored.redelivered
        if stored.expires_ms:
            message.expires_s = stored.expires_ms / 1000 - self._wall_s() + self.now_s
        if queue is None:
            self.forget(message)  # of a queue whose deletion outlived the crash, but not its messages'
        else:
            queue.restore(message)


def _exchange(fields: dict[str, Any]) -> Exchange:
    return Exchange(
        fields["name"],
        fields["type"],
        durable=True,
        auto_delete=fields["auto_delete"],
        internal=fields["internal"],
        arguments=fields["arguments"],
        alternate=alternate_exchange(fields["arguments"], f"exchange '{fields['name']}'"),
    )


def _bind(vhost: VirtualHost, fields: dict[str, Any]) -> None:
    source = vhost.exchanges.get(fields["source"])
    destinations: Any = vhost.queues if fields["to"] == "queue" else vhost.exchanges
    destination = destinations.get(fields["destination"])
    if source is not None and destination is not None:
        vhost.add_binding(Binding(source, destination, fields["routing_key"], fields["arguments"]))
