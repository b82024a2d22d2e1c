"""Signals as bytes on a pipe: the handlers do nothing.

A handler that calls eventlet hangs an idle process, because the hub's epoll is retried (PEP 475) and does not see
what was scheduled; one that writes, logs or locks can fail in the middle of anything. `signal.set_wakeup_fd` is
safe on all of these.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable

from novad.host.hub import Watcher


def clean() -> None:
    """Undo what novad may have inherited (nohup, a script's `trap`), so that no child inherits it from us."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN and number not in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)


class Signals:
    """Calls `on_signal(number)` in the hub for each of `numbers` that arrives."""

    def __init__(self, numbers: Iterable[int], on_signal: Callable[[int], None]) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._on_signal = on_signal
        for number in numbers:
            signal.signal(number, _ignore)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._watcher = Watcher(self._read_fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._read_fd, 4096)
        except BlockingIOError:
            return
        # A burst of one signal is one piece of news.
        for number in dict.fromkeys(data):
            self._on_signal(number)

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._watcher.close()
        os.close(self._read_fd)
        os.close(self._write_fd)


def _ignore(number: int, frame: object) -> None:
    """The wake-up descriptor has it already."""
