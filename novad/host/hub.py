"""What novad needs of eventlet's hub: readable descriptors, timers, and one mailbox.

Callbacks run in the hub itself, so they never block: they read what is there and put an event into the mailbox.
No greenlet is kept per child or per connection; 500 idle children cost descriptors, not stacks. A listener stays
registered between events, where `trampoline` would add and remove it in epoll each time.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet.hubs
    import greenlet

Item = TypeVar("Item")
# One wait at most: epoll takes 2**31 milliseconds (epoll_wait(2)), and more is an exception in the hub.
LONGEST_S = 86400.0


class Watcher:
    """Calls `callback()` whenever `fd` is readable (or writable), until closed. Does not own `fd`."""

    def __init__(self, fd: int, callback: Callable[[], None], write: bool = False) -> None:
        hub = eventlet.hubs.get_hub()
        kind = hub.WRITE if write else hub.READ
        self._callback = callback
        self._open = True
        self._listener: Any = hub.add(kind, fd, self._fire, _raise, self._forget)

    def _fire(self, _fd: int) -> None:
        # The hub calls everything of one poll, what was closed by an earlier callback included.
        if self._open:
            self._callback()

    def _forget(self) -> None:
        self._open = False

    def close(self) -> None:
        """Stop watching; must come before the descriptor is closed. May be called twice."""
        if self._open:
            self._open = False
            eventlet.hubs.get_hub().remove(self._listener)
        # The listener and what it calls refer to us: rings that only the garbage collector would take apart.
        self._listener = None
        self._callback = _nothing


def _nothing() -> None:
    """What is called of a watcher that is closed."""


def _raise(*error: Any) -> None:
    """The hub hands over an exception that it wants thrown into a waiter; a callback has none."""


class Timer:
    """Calls `callback()` once after `delay_s`, unless cancelled."""

    def __init__(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._left_s = max(delay_s, 0.0)
        self._callback = callback
        self._arm()

    def _arm(self) -> None:
        now_s = min(self._left_s, LONGEST_S)
        self._left_s -= now_s
        self._timer = eventlet.hubs.get_hub().schedule_call_global(now_s, self._fire)

    def _fire(self) -> None:
        if self._left_s > 0.0:
            self._arm()
        else:
            self._callback()

    def cancel(self) -> None:
        self._timer.cancel()


class Mailbox(Generic[Item]):
    """Where everybody leaves events for the one loop that owns the state."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._waiter: Any = None

    def put(self, item: Item) -> None:
        """Never blocks; wakes the loop at the end of this turn of the hub."""
        self._items.append(item)
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            eventlet.hubs.get_hub().schedule_call_global(0, waiter.switch)

    def __bool__(self) -> bool:
        return bool(self._items)

    def take(self) -> Item:
        """The oldest item. Raises `IndexError` when there is none."""
        return self._items.popleft()

    def wait(self, timeout_s: float | None) -> None:
        """Suspend the calling greenlet until there is an item or `timeout_s` have passed (None: no limit)."""
        if self._items:
            return
        self._waiter = greenlet.getcurrent()
        timer = None if timeout_s is None else Timer(timeout_s, self._time_out)
        try:
            eventlet.hubs.get_hub().switch()
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _time_out(self) -> None:
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            waiter.switch()
