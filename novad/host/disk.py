"""Writing to disk beside the loop: one thread performs all writes in the order in which they were asked for.

A write to a slow disk (a network home, a cheap card, a full write-back cache) may take seconds; the loop must answer,
restart and read pipes meanwhile. It is still told nothing too early: before anybody hears news, `settle` waits for the
thread, which on a good disk takes less than a tenth of a millisecond, and no longer than `PATIENCE_S` on a bad one.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from novad.host import clock
from novad.host.hub import Watcher

# So long the loop waits for the thread before it goes on without it.
PATIENCE_S = 0.08
# A write that takes longer is remarked on.
SLOW_S = 0.2

Job = Callable[[], None]


class Disk:
    """The thread and its queue. `on_slow(seconds)` is called in the loop after a write that took long."""

    def __init__(self, on_slow: Callable[[float], None] = lambda seconds: None) -> None:
        self._on_slow = on_slow
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        # Counted by the loop and by the thread, each its own: nobody needs a lock.
        self._asked = 0
        self._done = 0
        self._is_late = False
        self._busy_since_s = 0.0
        self._news: deque[Callable[[], None]] = deque()
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._watcher = Watcher(self._fd, self._hear)
        self._thread: threading.Thread | None = None

    def submit(self, job: Job) -> None:
        """Have `job()` called in the thread, after all that was submitted before. It raises nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="disk", daemon=True)
            self._thread.start()
        self._asked += 1
        self._jobs.put(job)

    def settle(self, patience_s: float = PATIENCE_S) -> bool:
        """Wait until all is done that was asked for; False when that takes too long.

        Who is late is not waited for again until it has caught up.
        """
        if self._done == self._asked:
            self._is_late = False
        elif not self._is_late:
            self._is_late = not self._await(patience_s)
        return not self._is_late

    def _await(self, patience_s: float) -> bool:
        bell = threading.Lock()
        bell.acquire()
        self.submit(bell.release)
        return bell.acquire(timeout=patience_s)

    @property
    def late_s(self) -> float:
        """For how long the write that is under way has kept the others waiting; 0 while the disk keeps up."""
        return clock.now_s() - self._busy_since_s if self._is_late and self._done != self._asked else 0.0

    @property
    def waiting(self) -> int:
        """Writes that are not done yet."""
        return self._asked - self._done

    def tell(self, news: Callable[[], None]) -> None:
        """From the thread: have `news()` called in the loop."""
        self._news.append(news)
        os.eventfd_write(self._fd, 1)

    def drain(self, patience_s: float) -> bool:
        """As `settle`, also for one who is late."""
        self._is_late = False
        return self.settle(patience_s)

    def close(self, patience_s: float) -> bool:
        """Wait for what is under way and end the thread; False when it was not done in time."""
        is_done = self.drain(patience_s)
        if self._thread is not None:
            self._jobs.put(None)
            if is_done:
                self._thread.join()
        self._watcher.close()
        return is_done

    # -- in the thread

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            began_s = self._busy_since_s = clock.now_s()
            job()
            self._done += 1
            took_s = clock.now_s() - began_s
            if took_s > SLOW_S:
                self.tell(lambda took_s=took_s: self._on_slow(took_s))  # type: ignore[misc]

    # -- in the loop

    def _hear(self) -> None:
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return
        while self._news:
            self._news.popleft()()
