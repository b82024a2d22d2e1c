"""Single keys from the terminal, without Enter; Ctrl-C stays a signal, Ctrl-Z suspends as always.

The only place that changes terminal modes; it puts back what it found, also around a suspension.
"""

from __future__ import annotations

import codecs
import os
import signal
import termios
from types import FrameType
from typing import IO

from novad.client.interrupts import readable


class Keyboard:
    """A context: inside it, keys come one by one. Does nothing where `stream` is no terminal."""

    def __init__(self, stream: IO[str]) -> None:
        self._fd = stream.fileno() if stream.isatty() else -1
        self._saved: list[int | list[bytes | int]] | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")

    def __enter__(self) -> Keyboard:
        if self._fd >= 0:
            self._saved = termios.tcgetattr(self._fd)
            self._single_keys()
            signal.signal(signal.SIGTSTP, self._suspend)
        return self

    def __exit__(self, *_: object) -> None:
        if self._saved is not None:
            if self._fd >= 0:
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def sources(self) -> list[int]:
        """What to wait on: the terminal, or nothing."""
        return [self._fd] if self._fd >= 0 else []

    def wait(self, timeout_s: float) -> list[str]:
        """The first key within `timeout_s`; what is typed after it is left for whoever reads next."""
        if not readable(self.sources(), timeout_s):
            return []
        return self.read(1)

    def read(self, limit: int = 4096) -> list[str]:
        """The keys that are there; an escape sequence (an arrow) is one item.

        A terminal that is gone is a hang-up, also where it is seen here before the signal comes: an `up` that owns its
        cluster ends with it. Who ignores the signal (nohup) has no keys any more.
        """
        try:
            data = os.read(self._fd, limit)
        except OSError:
            data = b""
        if not data:
            self._fd = -1
            signal.raise_signal(signal.SIGHUP)
            return []
        text = self._decoder.decode(data)
        return [text] if text.startswith("\x1b") else list(text)

    def _single_keys(self) -> None:
        mode = termios.tcgetattr(self._fd)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)

    def _suspend(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z: the terminal as it was, sleep, and single keys again after `fg`."""
        assert self._saved is not None
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._suspend)
        self._single_keys()
