"""One timer for many deadlines.

A timer for each call would cost more than the call. Almost all calls end long before their deadline, so the
only timer is set for the nearest one; when it fires, `visit` looks at everything once and says when to look
again. Calls that have ended meanwhile cost nothing. It fires at most every `GRAIN_S`, however many deadlines
lie close together.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from nova import green

GRAIN_S = 0.01


class Sweep:
    """`visit(now_s)` acts on what is due and returns the next due time, or None. Times are monotonic."""

    def __init__(self, visit: Callable[[float], float | None]) -> None:
        self._visit = visit
        self._at_s = float("inf")
        self._timer: green.GreenThread | None = None

    def note(self, due_s: float) -> None:
        """There is something due at `due_s`."""
        if due_s < self._at_s:
            self._arm(due_s)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._at_s = None, float("inf")

    def _arm(self, due_s: float) -> None:
        self.stop()
        self._at_s = due_s
        self._timer = green.spawn_after(max(GRAIN_S, due_s - time.monotonic()), self._fire)

    def _fire(self) -> None:
        self._timer, self._at_s = None, float("inf")
        next_s = self._visit(time.monotonic())
        if next_s is not None:
            self.note(next_s)
