"""A point in time up to which something may take; None is no limit."""

from __future__ import annotations

import time


class Deadline:
    def __init__(self, timeout_s: float | None) -> None:
        self._end_s = None if timeout_s is None else time.monotonic() + timeout_s

    def left_s(self) -> float | None:
        """Seconds left, 0 when it has passed, None without a limit: what `select` takes."""
        return None if self._end_s is None else max(0.0, self._end_s - time.monotonic())

    @property
    def is_over(self) -> bool:
        return self.left_s() == 0.0
