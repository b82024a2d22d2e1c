"""Greenlets that run many jobs, one after another.

On CPython 3.11 and later a new greenlet maps memory for its Python frames and gives it back when it ends: 6 us of
a message that takes 30. Here a greenlet that has finished a job takes the next one, so that jobs which do not wait
share one greenlet, and jobs that wait have one each. What a job sets in contextvars ends with it.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable
from typing import Any

from nova import green

MAX_IDLE = 32  # greenlets kept for the next jobs; some 20 kB each


class Workers:
    """Jobs begin at the end of the hub's turn, in order; each must handle its own exceptions."""

    def __init__(self) -> None:
        self._jobs: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._idle: list[Any] = []
        self._is_scheduled = False

    def spawn(self, work: Callable[..., None], *args: Any) -> None:
        """Run `work(*args)` in a greenlet that nothing else uses meanwhile; returns at once."""
        self._jobs.append((work, args))
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            green.schedule(self._begin)

    def _begin(self) -> None:
        """In the hub: the jobs that wait, in as many greenlets as there are jobs that wait for something else."""
        self._is_scheduled = False
        try:
            while self._jobs:
                worker = self._idle.pop() if self._idle else green.greenlet(self._work, green.getcurrent())
                worker.switch()
        finally:
            if self._jobs:  # a job raised what ends a greenlet; the others begin nevertheless
                self._schedule()

    def _work(self) -> None:
        this, jobs = green.getcurrent(), self._jobs
        while True:
            while jobs:
                work, args = jobs.popleft()
                contextvars.Context().run(work, *args)
                del work, args
            if len(self._idle) >= MAX_IDLE:
                return
            self._idle.append(this)
            green.hubs.get_hub().switch()
