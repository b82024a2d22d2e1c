"""The disk's writes, beside the loop.

`fdatasync` takes from a tenth of a millisecond to a second, and the loop must serve everybody else meanwhile. Each
sync runs in a thread of its own that ends with it: an idle broker has none, and a broker that never needs one
never starts one. The loop waits for `fileno` to become readable and calls `collect`.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable, Sequence
from typing import Any

Start = Callable[[Callable[..., None], tuple[Any, ...]], Any]


class Syncer:
    """One sync at a time. `done` is called by `collect`, with the error where there was one."""

    def __init__(self, done: Callable[[OSError | None], None], start: Start | None = None) -> None:
        """`start` starts a native thread, where `_thread` has been patched away."""
        self._done = done
        self._start: Start = start or _thread.start_new_thread
        self._event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._error: OSError | None = None
        self._is_busy = False

    def fileno(self) -> int:
        """Readable when `collect` is due."""
        return self._event_fd

    def begin(self, fds: Sequence[int]) -> None:
        """Syncs the files, which must stay open until `done`."""
        self._is_busy = True
        try:
            self._start(self._sync, (fds,))
        except RuntimeError:  # no thread to be had: everybody waits, but nothing is promised too early
            self._sync(fds)

    def _sync(self, fds: Sequence[int]) -> None:
        error: OSError | None = None
        try:
            for fd in fds:
                os.fdatasync(fd)
        except OSError as failure:
            error = failure
        self._error = error
        os.eventfd_write(self._event_fd, 1)

    def collect(self) -> None:
        """The sync has ended."""
        os.eventfd_read(self._event_fd)
        self._is_busy = False
        self._done(self._error)

    def close(self) -> None:
        """Waits for the sync that is under way."""
        if self._is_busy:
            os.set_blocking(self._event_fd, True)
            self.collect()
        os.close(self._event_fd)
