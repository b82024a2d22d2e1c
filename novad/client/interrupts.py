"""Ctrl-C as an event among others: counted, and waited for together with the socket and the keys.

A second and a third Ctrl-C mean something else than the first, so none of them may unwind the stack.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType


class Interrupts:
    """A context that counts SIGINT; SIGTERM ends the command in an orderly way (the terminal is put back)."""

    def __init__(self) -> None:
        self.count = 0
        self._told = 0
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
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
        if error is None and self.count > self._told:
            # It came between the last look and now; lost, the command would go on as if nobody had said a word.
            raise KeyboardInterrupt

    def fileno(self) -> int:
        """Readable when there is something to `take`."""
        return self._reader

    def take(self) -> int:
        """How many came since the last call."""
        if self.count > self._told:
            os.read(self._reader, 4096)
        new, self._told = self.count - self._told, self.count
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
