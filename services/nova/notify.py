"""What a service says to whatever supervises it: systemd's datagram and s6's newline.

Source: sd_notify(3) (`NOTIFY_SOCKET`) and s6-supervise's notification-fd, whose number comes in `NOTIFY_FD`.
Both may be absent. Saying never blocks and never fails: a supervisor that does not listen is its own problem.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import MutableMapping

from nova import green


class Notifier:
    """The supervisor's ears. `ready` may be said once; a second time is not sent."""

    def __init__(
        self, address: str | None = None, fd: int | None = None, watchdog_s: float | None = None
    ) -> None:
        self._address = address
        self._fd = fd
        self._is_ready = False
        self.watchdog_s = watchdog_s

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """Take the supervisor's offer out of the environment, so that programs we start do not speak for us."""
        address = environ.pop("NOTIFY_SOCKET", None)
        fd = environ.pop("NOTIFY_FD", "")
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        meant = not pid.isdigit() or int(pid) == os.getpid()
        watchdog_s = int(usec) / 1e6 if usec.isdigit() and int(usec) > 0 and meant else None
        return cls(address or None, int(fd) if fd.isdigit() else None, watchdog_s)

    def ready(self, status: str = "") -> None:
        """The service does what it is for."""
        if self._is_ready:
            return
        self._is_ready = True
        self._send("READY=1", f"STATUS={status}" if status else "", f"MAINPID={os.getpid()}")
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.write(self._fd, b"\n")
                os.close(self._fd)
            self._fd = None

    def status(self, text: str) -> None:
        """One line for a person."""
        self._send(f"STATUS={text}")

    def stopping(self, status: str = "") -> None:
        """The end was asked for."""
        self._send("STOPPING=1", f"STATUS={status}" if status else "")

    def reloading(self) -> None:
        """The configuration is read again; `reloaded` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self, status: str = "") -> None:
        """The reload that `reloading` began is over."""
        self._send("READY=1", f"STATUS={status}" if status else "")

    def watchdog(self) -> None:
        """The hub turns."""
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Starting or stopping goes on; wait `seconds` longer from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        message = "\n".join(line.replace("\n", " ") for line in lines if line)
        socket = green.original("socket")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(message.encode(), address)
