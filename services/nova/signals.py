"""Signals as values, in the hub.

A Python handler that touches eventlet hangs an idle process: the hub's wait in the kernel is taken up again after
the handler (PEP 475), and what was scheduled waits for the next timer, up to a minute. So the handlers do
nothing; the interpreter itself writes the number to a socket (`signal.set_wakeup_fd`), and a greenlet reads it.

`unread` lets a native thread look at what the hub has not yet taken, for when the hub is stuck.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import Any

from nova import green

LOG = logging.getLogger(__name__)

HANDLED = ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2")


def _nothing(number: int, frame: Any) -> None:
    """The wake-up descriptor does the work."""


class Signals:
    """Calls `receive(name)` in a greenlet for each signal of the process, name without SIG."""

    def __init__(self, receive: Callable[[str], None]) -> None:
        self._receive = receive
        self._reader: Any = None
        self._writer: Any = None
        self._greenlet: Any = None
        self._former: dict[int, Any] = {}
        self._former_fd = -1

    def install(self) -> bool:
        """Take the signals over; False, with a warning, outside the main thread, where Python allows it not."""
        threading = green.original("threading")
        if threading.current_thread() is not threading.main_thread():
            LOG.warning("not in the main thread: signals are left alone")
            return False
        self._reader, self._writer = green.original("socket").socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._former_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for name in HANDLED:
            number = getattr(signal, f"SIG{name}")
            self._former[number] = signal.signal(number, _nothing)
        self._greenlet = green.spawn(self._read)
        return True

    def restore(self) -> None:
        """Give the signals back; for tests and for programs that go on."""
        if self._reader is None:
            return
        self._greenlet.kill()
        for number, handler in self._former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former_fd)
        self._reader.close()
        self._writer.close()
        self._reader = self._writer = None

    def unread(self) -> list[str]:
        """Names of signals that came and that the hub has not taken; any thread may ask."""
        try:
            numbers = self._reader.recv(4096, green.original("socket").MSG_PEEK)
        except (OSError, AttributeError):
            return []
        return [name for name in map(_name, numbers) if name]

    def _read(self) -> None:
        while True:
            green.wait_read(self._reader.fileno())
            try:
                numbers = self._reader.recv(4096)
            except BlockingIOError:
                continue
            for name in map(_name, numbers):
                if name:
                    self._receive(name)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return ""
