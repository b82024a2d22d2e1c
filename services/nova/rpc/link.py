"""A link: the connection to the broker that somebody has, however often the connection itself ends.

One greenlet owns it: it opens a session, reads it to its end, waits a little and opens the next. What was
posted and not confirmed is sent again on the next session, so that no accepted message is lost; what was only
sent is the sender's to repeat (`on_up` tells when). The waits grow and are spread at random: a hundred services
must not come back to a restarted broker at the same moment.
"""

from __future__ import annotations

import logging
import random
import time

from nova import green
from nova.rpc.errors import LinkClosed, LinkLost, RPCTimeout
from nova.rpc.sweep import Sweep
from nova.rpc.topology import Plan
from nova.rpc.transport import Delivery, Handler, Message, Opener, Post, Session

LOG = logging.getLogger(__name__)

RETRY_MIN_S = 0.1
RETRY_MAX_S = 1.5  # services work again two seconds after a broker does, and ask it no more than twice a second
CLOSE_S = 1.0


def retry_delay_s(failures: int, chance: float) -> float:
    """How long to wait before connecting again; `chance` is a random number from 0 to 1."""
    ceiling = min(RETRY_MAX_S, RETRY_MIN_S * 2.0 ** min(failures, 16))
    return ceiling * (0.5 + 0.5 * chance)


class Link:
    """Not used by two: whoever makes a link is its handler."""

    def __init__(self, name: str, plan: Plan, handler: Handler, opener: Opener) -> None:
        self.name = name
        self.plan = plan
        self.session: Session | None = None
        self.reason = "not connected yet"
        self._handler = handler
        self._open = opener
        self._posts: dict[Post, None] = {}
        self._sweep = Sweep(self._expire)
        self._owner: green.GreenThread | None = None
        self._is_ready = False
        self._came_up = green.Event()
        self._closing = green.Event()

    def start(self) -> None:
        """Connect in the background."""
        if self._owner is None and not self.is_closed():
            self._owner = green.spawn(self._own)

    def is_up(self) -> bool:
        """All consumers are confirmed. Deliveries may come, and be answered, a moment earlier."""
        return self._is_ready

    def is_closed(self) -> bool:
        return bool(self._closing.ready())

    def wait_up(self, timeout_s: float | None = None) -> None:
        """Wait for confirmed consumers. Raises `RPCTimeout` with the reason, `LinkClosed` after `close`."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._is_ready:
            if self.is_closed():
                raise LinkClosed(f"{self.name}: closed")
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise RPCTimeout(f"{self.name}: no connection to the broker in {timeout_s} s: {self.reason}")
            self._came_up.wait(left_s)

    def send(self, message: Message) -> bool:
        """Publish without a promise; False while there is no connection."""
        if self.session is None:
            return False
        self.session.send(message)
        return True

    def deliver(self, message: Message, timeout_s: float) -> None:
        """Publish with a promise: returns once the broker has taken the message, over as many connections as
        needed.

        Raises `RPCTimeout` (the outcome is not known), `NoSuchTopic` for a mandatory one, `LinkClosed`.
        """
        if self.is_closed():
            raise LinkClosed(f"{self.name}: closed")
        post = Post(message, time.monotonic() + timeout_s)
        self._posts[post] = None
        self._sweep.note(post.due_s)
        try:
            if self.session is not None:
                self.session.post(post)
            post.wait()
        finally:
            del self._posts[post]

    def _expire(self, now_s: float) -> float | None:
        """Give up the posts that are due; the next time to do so."""
        for post in self._posts:
            if post.due_s <= now_s:
                state = self.reason or "the broker has not confirmed it"
                post.settle(RPCTimeout(f"{self.name}: not accepted in time: {state}; outcome unknown"))
        return min((post.due_s for post in self._posts if post.due_s > now_s), default=None)

    def wait_writable(self, timeout_s: float) -> bool:
        """Wait while the broker takes nothing; True as well without a connection, since nothing is written
        then.
        """
        return self.session is None or self.session.wait_writable(timeout_s)

    def ack(self, delivery: Delivery) -> bool:
        """False when the connection that brought it is gone: it will come again."""
        session = self.session
        if session is None or delivery.session is not session:
            return False
        session.ack(delivery)
        return True

    def requeue(self, delivery: Delivery) -> None:
        session = self.session
        if session is not None and delivery.session is session:
            session.requeue(delivery)

    def cancel(self, tags: frozenset[str], timeout_s: float) -> bool:
        """Stop these consumers, now and on every later connection; True once the broker has confirmed it."""
        keep = frozenset(consumer.tag for consumer in self.plan.consumers) - tags
        self.plan = self.plan.only(keep)
        return self.session is None or self.session.cancel(tags, timeout_s)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is written; False if that took too long. True as well without a connection."""
        return self.session is None or self.session.flush(timeout_s)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Never waits longer than `timeout_s`, whatever the broker does."""
        if self.is_closed():
            return
        self._closing.send()
        self._sweep.stop()
        if self.session is not None:
            self.session.close(timeout_s)
        if self._owner is not None and self._owner is not green.getcurrent():
            # It may be inside a handshake; that connection is thrown away with it.
            self._owner.kill()
        self.session, self._is_ready = None, False
        for post in self._posts:
            post.settle(LinkClosed(f"{self.name}: closed before the broker confirmed; outcome unknown"))
        self._wake()

    def _wake(self) -> None:
        event, self._came_up = self._came_up, green.Event()
        event.send()

    def _own(self) -> None:
        failures = 0
        while not self.is_closed():
            was_up = self._live_once()
            failures = 0 if was_up else failures + 1
            self._closing.wait(retry_delay_s(failures, random.random()))

    def _live_once(self) -> bool:
        """One connection, from its opening to its end; True if it came up."""
        try:
            session = self._open(self.plan, self._handler)
        except Exception as error:  # whatever kombu, py-amqp and the operating system raise: all mean "not now"
            self._note(f"cannot connect: {error or type(error).__name__}")
            return False
        self.session = session
        for post in self._posts:
            if not post.is_settled():
                session.post(post)
        try:
            session.run(self._up)
        except (LinkLost, OSError) as error:
            self._note(str(error) or type(error).__name__)
        finally:
            was_up = self._down()
            session.close(0)
        return was_up

    def _note(self, reason: str) -> None:
        """Log a reason once, however often it comes back."""
        if not self.is_closed() and reason != self.reason:
            LOG.warning("%s: link to the broker: %s; trying again", self.name, reason)
        self.reason = reason

    def _up(self) -> None:
        LOG.info("%s: link to the broker is up", self.name)
        self._is_ready, self.reason = True, ""
        self._wake()
        self._handler.on_up()

    def _down(self) -> bool:
        was_up, self._is_ready, self.session = self._is_ready, False, None
        if was_up and not self.is_closed():
            self._handler.on_down(self.reason)
        return was_up
