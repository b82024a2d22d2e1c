"""The service's side: messages in, a greenlet each, a reply and then the acknowledgement out.

A message is acknowledged after its reply: a process that dies takes nothing with it, the broker gives what it
had to another. What comes twice (its connection broke, its caller sent it again) joins the run that is under
way, or gets the reply of the one that has ended. Calls to one host, and methods marked long-running, go through
the journal instead: written, acknowledged, run, and after a crash resumed by the same host. A fanout is taken
without acknowledgement. How often a deadly message is tried: `redelivery`. Who waits for whom: `topology` on
nested calls.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from nova import green
from nova.rpc import topology, wire
from nova.rpc.answered import Answered
from nova.rpc.call import Call
from nova.rpc.errors import MalformedMessage
from nova.rpc.journal import Journal, Row
from nova.rpc.link import Link
from nova.rpc.options import FLAGS
from nova.rpc.redelivery import Verdict, judge
from nova.rpc.runner import Outcome, Runner
from nova.rpc.sweep import Sweep
from nova.rpc.topology import FANOUT, HOST, HOST_NESTED, LANES, SUSPECTS
from nova.rpc.transport import Delivery, Message, Opener
from nova.rpc.workers import Workers

LOG = logging.getLogger(__name__)

CANCEL_S = 5.0
PUBLISH_S = 30.0
RETRY_S = 1.0
BY_HOST = frozenset((HOST, HOST_NESTED))


class Server:
    """What `nova.rpc.get_server` returns; the handler of its link."""

    def __init__(
        self,
        topic: str,
        host: str,
        runner: Runner,
        prefetch: int,
        journal: Journal | None,
        opener: Opener,
    ) -> None:
        self.topic = topic
        self.host = host
        self._runner = runner
        self._journal = journal
        self._is_stopping = False
        self._busy = 0
        self._idle = green.Event()
        self._running: dict[str, Call] = {}
        self._replacing: dict[str, green.Event] = {}
        self._answered = Answered()
        self._workers = Workers()
        self._sweep = Sweep(self._say_alive)
        self._exchange: str = FLAGS.control_exchange
        plan = topology.server_plan(
            self._exchange, topic, host, uuid.uuid4().hex[:12], prefetch, FLAGS.rpc_queue_expires
        )
        self._link = Link(f"{topic}.{host}", plan, self, opener)

    @property
    def inflight(self) -> list[Call]:
        """The calls that have begun and not ended."""
        return list(self._running.values())

    def is_up(self) -> bool:
        """The broker has confirmed the consumers, and the connection still stands."""
        return self._link.is_up()

    def start(self, timeout_s: float | None = None) -> None:
        """Returns once the broker has confirmed the consumers and calls begun before a crash are under way again.

        Raises `RPCTimeout` after `timeout_s` (None: waits for the broker as long as it takes), `LinkClosed` when
        `close` was called meanwhile, `JournalBroken`.
        """
        rows = self._journal.open() if self._journal is not None else []
        calls = [(row, self._register(Call.of_row(row))) for row in rows if row.reply is None]
        self._link.start()
        self._link.wait_up(timeout_s)
        for row, call in calls:
            self._spawn(self._resume, row, call)
        for row in rows:
            if row.reply is not None:
                self._spawn(self._reply_again, row)

    def stop(self, timeout_s: float = CANCEL_S) -> bool:
        """Take nothing new; what has not begun goes back to its queue. True once the broker has confirmed both.

        Calls nested in served calls are still taken, here or at a peer that drains too, until `close`.
        """
        self._is_stopping = True
        return self._link.cancel(topology.DRAINED, timeout_s) and self._link.flush(timeout_s)

    def wait(self, timeout_s: float | None = None) -> bool:
        """True when nothing is in flight and everything is written, False if that takes longer than
        `timeout_s`.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while self._busy:
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            self._idle.wait(left_s)
        left_s = CANCEL_S if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        return self._link.flush(left_s)

    def close(self) -> None:
        """Drop the connection: what is un-acknowledged goes to another process."""
        self._is_stopping = True
        self._sweep.stop()
        self._link.close()
        if self._journal is not None:
            self._journal.close()

    # The link's handler

    def on_delivery(self, delivery: Delivery) -> None:
        if self._is_stopping and delivery.consumer not in LANES:
            self._give_back(delivery)
        else:
            self._spawn(self._serve, delivery)

    def on_return(self, message_id: str | None, reason: str) -> None:
        """Replies are not mandatory: a caller that is gone costs nothing."""

    def on_up(self) -> None:
        """What was un-acknowledged comes again by itself."""

    def on_down(self, reason: str) -> None:
        """Calls run on; their messages come again and join them."""

    def _give_back(self, delivery: Delivery) -> None:
        if delivery.consumer == FANOUT:
            return
        if delivery.consumer == SUSPECTS:
            # Plain requeuing would mark it as redelivered, which for a suspect means guilty.
            self._spawn(self._replace, delivery, delivery.body, topology.suspects_key(self.topic))
        else:
            self._link.requeue(delivery)

    # One greenlet a message

    def _spawn(self, work: Callable[..., None], *args: Any) -> None:
        self._busy += 1
        self._workers.spawn(self._work, work, *args)

    def _work(self, work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except Exception:
            LOG.exception("%s: a message could not be handled; it goes back to its queue", self.topic)
            green.sleep(RETRY_S)
            if isinstance(args[0], Delivery):
                self._link.requeue(args[0])
        finally:
            self._busy -= 1
            if not self._busy:
                event, self._idle = self._idle, green.Event()
                event.send()

    def _serve(self, delivery: Delivery) -> None:
        try:
            request = wire.decode_request(delivery.body)
        except MalformedMessage as error:
            self._bury(delivery, str(error), 0)
            return
        if not request.unique_id:
            request.unique_id = uuid.uuid4().hex  # made by hand: cannot be told from its copies
        if request.unique_id in self._replacing:
            self._replacing[request.unique_id].wait()
        if self._joins(request, delivery):
            return
        is_journaled = self._is_journaled(request, delivery)
        if not is_journaled and delivery.consumer != FANOUT:
            verdict = judge(delivery.redelivered, request.attempt, delivery.consumer == SUSPECTS)
            if verdict is not Verdict.RUN:
                self._set_aside(verdict, request, delivery)
                return
        if request.is_stale(time.time(), delivery.redelivered):
            LOG.info("%s: %s: nobody waits for it any more; not run", self.topic, request.method)
            self._ack(delivery)
            return
        call = self._register(Call(request, delivery))
        if is_journaled:
            self._run_journaled(call, delivery)
        else:
            self._run_and_answer(call)

    def _is_journaled(self, request: wire.Request, delivery: Delivery) -> bool:
        if self._journal is None or delivery.consumer == FANOUT:
            return False
        return delivery.consumer in BY_HOST or self._runner.is_long_running(request.method)

    def _joins(self, request: wire.Request, delivery: Delivery) -> bool:
        """The same request is running or has just been answered here."""
        twin = self._running.get(request.unique_id)
        if twin is not None:
            twin.deliveries.append(delivery)
            for item in twin.items:
                self._send(delivery, item)
            return True
        reply = self._answered.get(request.unique_id)
        if reply is None:
            return False
        self._send(delivery, reply)
        self._ack(delivery)
        return True

    def _register(self, call: Call) -> Call:
        self._running[call.id] = call
        if call.request.timeout_s:
            call.alive_due_s = call.started_s + call.request.timeout_s / 2
            self._sweep.note(call.alive_due_s)
        return call

    def _run_and_answer(self, call: Call) -> None:
        try:
            outcome = self._runner.run(call, lambda item: self._send_item(call, item))
        finally:
            del self._running[call.id]
        self._end(call, outcome)

    def _end(self, call: Call, outcome: Outcome) -> None:
        """The reply before the acknowledgement, and both to everyone who asked."""
        self._answered.add(call.id, outcome.reply)
        for delivery in call.deliveries:
            self._send(delivery, outcome.reply)
        if outcome.error is not None and call.request.msg_id is None and not call.is_fanout:
            # Nobody waits for a cast, so its failure is kept where an operator finds it.
            self._keep_dead(call.body, call.id, outcome.error, outcome.tries)
        for delivery in call.deliveries:
            self._ack(delivery)

    def _send(self, delivery: Delivery, body: bytes) -> None:
        if delivery.reply_to and body:
            self._link.send(Message(body, "", delivery.reply_to, delivery.correlation_id))

    def _send_item(self, call: Call, body: bytes) -> None:
        call.items.append(body)
        for delivery in call.deliveries:
            self._send(delivery, body)

    def _ack(self, delivery: Delivery) -> None:
        """Once; a second acknowledgement would close the channel."""
        if delivery.consumer != FANOUT and delivery.session is not None:
            self._link.ack(delivery)
            delivery.session = None

    def _say_alive(self, now_s: float) -> float | None:
        """Tell callers that their call still runs; the next time to do so."""
        next_s: float | None = None
        for call in self._running.values():
            if not call.request.timeout_s:
                continue
            if call.alive_due_s <= now_s:
                call.alive_due_s = now_s + call.request.timeout_s / 2
                for delivery in call.deliveries:
                    self._send(delivery, wire.ALIVE)
            next_s = call.alive_due_s if next_s is None else min(next_s, call.alive_due_s)
        return next_s

    # The journal

    def _run_journaled(self, call: Call, delivery: Delivery) -> None:
        assert self._journal is not None
        try:
            known = self._journal.begin(call.row(delivery))
        except BaseException:
            del self._running[call.id]
            raise
        self._ack(delivery)
        if known is None:
            self._run_to_journal(call)
            return
        del self._running[call.id]
        for twin in call.deliveries:
            self._send(twin, known.reply or self._runner.abandoned(call).reply)

    def _run_to_journal(self, call: Call) -> None:
        try:
            outcome = self._runner.run(call, lambda item: self._send_item(call, item))
            self._finish(call, outcome)
        finally:
            del self._running[call.id]

    def _finish(self, call: Call, outcome: Outcome) -> None:
        assert self._journal is not None
        self._journal.finish(call.id, outcome.reply)
        self._end(call, outcome)
        self._journal.replied(call.id)

    def _resume(self, row: Row, call: Call) -> None:
        """A call that had begun when an earlier process died."""
        assert self._journal is not None
        try:
            if self._runner.is_idempotent(call.method) and row.attempts < self._runner.max_tries:
                self._journal.begin_again(call.id)
                outcome = self._runner.run(call, lambda item: self._send_item(call, item))
            else:
                outcome = self._runner.recover(call)
            self._finish(call, outcome)
        finally:
            del self._running[call.id]

    def _reply_again(self, row: Row) -> None:
        """A call that had ended, but whose reply may not have left."""
        assert self._journal is not None
        assert row.reply is not None
        self._send(Call.of_row(row).deliveries[0], row.reply)
        self._journal.replied(row.unique_id)

    # Messages that cannot be run here and now

    def _set_aside(self, verdict: Verdict, request: wire.Request, delivery: Delivery) -> None:
        if verdict is Verdict.BURY:
            reason = f"its process died {self._runner.max_tries} times while it ran"
            self._send(delivery, self._runner.abandoned(Call(request, delivery), reason).reply)
            self._bury(delivery, reason, request.attempt + 1)
            return
        request.attempt += 1
        if verdict is Verdict.ALONE:
            key = topology.suspects_key(self.topic)
        else:
            key = topology.server_key(self.topic, self.host if delivery.consumer in BY_HOST else None)
            key = topology.nested_key(key) if delivery.consumer in LANES else key
        replaced = self._replacing[request.unique_id] = green.Event()
        try:
            self._replace(delivery, wire.encode_request(request), key)
            # The copy may be here already, and deadly: it begins when the broker has this acknowledgement.
            self._link.flush(PUBLISH_S)
        finally:
            del self._replacing[request.unique_id]
            replaced.send()

    def _replace(self, delivery: Delivery, body: bytes, key: str) -> None:
        """Publish the message anew, and acknowledge this one when the broker has the other."""
        message = Message(body, self._exchange, key, delivery.correlation_id, delivery.reply_to, persistent=True)
        self._link.deliver(message, PUBLISH_S)
        self._ack(delivery)

    def _bury(self, delivery: Delivery, reason: str, tries: int) -> None:
        self._keep_dead(delivery.body, delivery.correlation_id, reason, tries)
        self._ack(delivery)

    def _keep_dead(self, body: bytes, message_id: str | None, reason: str, tries: int) -> None:
        LOG.error("%s: message %s goes to %s: %s", self.topic, message_id, topology.DEAD_LETTERS, reason)
        headers = {"topic": self.topic, "host": self.host, "reason": reason[:1000], "tries": tries}
        message = Message(body, "", topology.DEAD_LETTERS, message_id, persistent=True, headers=headers)
        self._link.deliver(message, PUBLISH_S)
