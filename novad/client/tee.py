"""A command whose output goes to this terminal and to its log at once (`fg --log`).

On a terminal the command gets one of its own, so that prompts and colours work; keys and the window size are passed
on, and what it prints comes back here and goes into the pipe of its log. Elsewhere a pipe takes the terminal's place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import termios
import tty
from collections.abc import Iterator

from novad.client.interrupts import readable

CHUNK = 65536


class Tee:
    """`child_end` is for the command, which writes into it; `close_child_end` once it has it."""

    def __init__(self, terminal_fd: int | None, log: int) -> None:
        self.has_terminal = terminal_fd is not None
        self._keys = terminal_fd
        self._log = log
        # A log that nobody reads must not stop the command: what does not fit is left out.
        os.set_blocking(log, False)
        self._reader, self.child_end = os.openpty() if self.has_terminal else os.pipe()
        self._copy_size()

    def close_child_end(self) -> None:
        os.close(self.child_end)

    def pump(self, pid: int) -> None:
        """Passes everything on until `pid` is dead and what it wrote is here."""
        pidfd = os.pidfd_open(pid)
        try:
            with self._raw_terminal():
                while self._pass_on(pidfd):
                    pass
        finally:
            os.close(pidfd)
            os.close(self._reader)

    def _pass_on(self, pidfd: int) -> bool:
        """One round; False when there is nothing more to come."""
        keys = [] if self._keys is None else [self._keys]
        ready = readable([self._reader, pidfd, *keys])
        if self._reader in ready:
            return self._show()
        if self._keys in ready and self._keys is not None:
            data = os.read(self._keys, CHUNK)
            if not data:
                self._keys = None
            else:
                os.write(self._reader, data)
            return True
        # It is dead, and nothing was there to read: whoever else holds its output is not waited for.
        return False

    def _show(self) -> bool:
        try:
            data = os.read(self._reader, CHUNK)
        except OSError:
            # EIO: nobody has the terminal open any more.
            return False
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(1, rest) :]
        with contextlib.suppress(BlockingIOError):
            os.write(self._log, data.replace(b"\r\n", b"\n"))
        return bool(data)

    def _copy_size(self) -> None:
        if self._keys is not None:
            size = fcntl.ioctl(self._keys, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
            fcntl.ioctl(self._reader, termios.TIOCSWINSZ, size)

    @contextlib.contextmanager
    def _raw_terminal(self) -> Iterator[None]:
        """Every key is the command's, Ctrl-C too; whoever lent the terminal puts the modes back."""
        if self._keys is None:
            yield
            return
        before = signal.signal(signal.SIGWINCH, lambda _number, _frame: self._copy_size())
        modes = termios.tcgetattr(self._keys)
        tty.setraw(self._keys)
        try:
            yield
        finally:
            signal.signal(signal.SIGWINCH, before)
            termios.tcsetattr(0, termios.TCSADRAIN, modes)
