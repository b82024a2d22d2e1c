"""Where one greenlet waits for one answer.

An eventlet Event sets a timer for each waiter, and the hub sorts its timers: that costs more than the rest of a
confirmed cast. Answers come many at a time, so here all who have one are woken by one callback, in order.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from nova import green


class Latch:
    """Set once; whoever waits, at most one greenlet, goes on at the end of the hub's turn."""

    __slots__ = ("_error", "_is_set", "_value", "_waiter")

    def __init__(self) -> None:
        self._is_set = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._waiter: Any = None

    def ready(self) -> bool:
        return self._is_set

    def send(self, value: Any = None) -> None:
        """The answer. Only once."""
        assert not self._is_set
        self._is_set, self._value = True, value
        if self._waiter is not None:
            _wake_later(self)

    def send_exception(self, error: BaseException) -> None:
        """The answer is raised where it is waited for."""
        self._error = error
        self.send()

    def wait(self) -> Any:
        """The answer, as soon as it is there."""
        if not self._is_set:
            assert self._waiter is None
            self._waiter = green.getcurrent()
            try:
                while not self._is_set:
                    green.hubs.get_hub().switch()
            finally:
                self._waiter = None
        if self._error is not None:
            raise self._error
        return self._value

    def wake(self) -> None:
        """In the hub. Who was killed or timed out meanwhile waits no longer."""
        if self._waiter is not None:
            self._waiter.switch()


_answered: list[Latch] = []


def _wake_later(latch: Latch) -> None:
    if not _answered:
        green.schedule(_wake_all)
    _answered.append(latch)


def _wake_all() -> None:
    answered = deque(_answered)
    _answered.clear()
    try:
        while answered:
            answered.popleft().wake()
    finally:
        for latch in answered:  # one ended with what ends a greenlet; the others go on nevertheless
            _wake_later(latch)
