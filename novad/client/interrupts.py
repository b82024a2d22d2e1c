"""Ctrl-C as an event among others: counted, and waited for together with the socket and the keys.

A second and a third Ctrl-C mean something else than the first, so none of them may unwind the stack.

A command waits by `readable` alone: `select.select` does not notice a signal that comes after the interpreter's last
look for one and before the system call, and then Ctrl-C stays unheard until something else happens.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any


class Interrupts:
    """A context that counts SIGINT; SIGTERM ends the command in an orderly way (the terminal is put back)."""

    def __init__(self) -> None:
        self.count = 0
        self._told = 0
        self._reader, self._writer = pipe()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        self._before = {
            signal.SIGINT: signal.signal(signal.SIGINT, self._interrupt),
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._terminate),
        }
        return self

    def __exit__(self, error: object, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        os.close(self._reader)
        os.close(self._writer)
        if error is None and self.is_pressed:
            # It came between the last look and now; lost, the command would go on as if nobody had said a word.
            raise KeyboardInterrupt

    def fileno(self) -> int:
        """Readable when there is something to `take`."""
        return self._reader

    @property
    def is_pressed(self) -> bool:
        """There is something to `take`."""
        return self.count > self._told

    def take(self) -> int:
        """How many came since the last call."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        # One look: what comes between two would be taken for told.
        count = self.count
        new, self._told = count - self._told, count
        return new

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        try:
            os.write(self._writer, b"x")
        except BlockingIOError:
            pass

    def _terminate(self, number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)


@contextlib.contextmanager
def ordinary_interrupts() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt as usual: for a command that runs within a live view."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def readable(sources: Sequence[Any], timeout_s: float | None = None) -> list[Any]:
    """Those of `sources` (descriptors, or what has a `fileno`) that can be read; none after `timeout_s`.

    A signal's handler runs at once, in whatever moment it came. On a thread, which gets no signals, a plain `select`.
    """
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    reader, writer = _wakeup()
    try:
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    except ValueError:
        return select.select(sources, [], [], timeout_s)[0]
    try:
        while True:
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            ready: list[Any] = select.select([*sources, reader], [], [], left_s)[0]
            if reader in ready:
                ready.remove(reader)
                os.read(reader, 4096)
            elif not ready:
                return []
            if ready:
                return ready
    finally:
        signal.set_wakeup_fd(before)


@functools.cache
def _wakeup() -> tuple[int, int]:
    """Reading and writing end of the pipe into which the interpreter writes at a signal, before it runs the handler."""
    return pipe()


def pipe() -> tuple[int, int]:
    """Reading and writing end; neither ever waits."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer
