"""A native thread that looks after the hub: when it stands still, says where, and obeys in its place.

Everything else in a service runs in the hub; while one greenlet computes for ever or sits in C code, nobody
else can. After `--hub_limit` seconds all stacks go to stderr, once for each standstill. Signals
that the hub does not take are obeyed here: USR1 prints the stacks, QUIT or a second INT ends the process with 3,
and a TERM or INT that was not taken for `patience_s` ends it with 4. The thread wakes once a second and
does not wake the hub. C code that holds the interpreter's lock stops this thread as well: then a timer of
faulthandler, which needs no lock, prints the stacks.
"""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Callable
from select import PIPE_BUF, POLLOUT
from typing import Any

from nova import exception, flags, green, stacks
from nova.signals import Signals

FLAGS = flags.FLAGS
flags.DEFINE_float(
    "hub_limit", 5.0, "seconds that the hub may stand still before its stacks are printed", least=0.1
)

PERIOD_S = 1.0
# How long stacks wait for whoever reads stderr; the rest of them is dropped then, like log lines.
READER_S = 0.2


class Watchdog:
    """`describe` gives lines about calls in flight; `end` ends the process (a test hands in its own)."""

    def __init__(
        self,
        signals: Signals,
        describe: Callable[[], list[str]] = list,
        patience_s: float = 10.0,
        end: Callable[[int], Any] = os._exit,
        fd: int = 2,
    ) -> None:
        self.hub = green.HubWatch()
        self._signals = signals
        self._describe = describe
        self._patience_s = patience_s
        self._end = end
        self._fd = fd
        threading = green.original("threading")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._has_dumped = False
        self._dumped_usr1 = 0
        self._asked_s: float | None = None

    def start(self) -> None:
        self._expect()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def dump(self, title: str) -> None:
        """Write all stacks to stderr, from whatever thread this is."""
        try:
            described = self._describe()
        except Exception as error:  # half-built state seen from another thread
            described = [f"(calls in flight: {error!r})"]
        text = stacks.text(f"{title} (hub busy for {self.hub.busy_s():.1f} s)", described)
        _write(self._fd, text.encode("utf-8", "backslashreplace"))

    def _run(self) -> None:
        while not self._stopped.wait(PERIOD_S):
            self.look()
            self._expect()
        faulthandler.cancel_dump_traceback_later()

    def _expect(self) -> None:
        """Stacks, unless we are here again in time."""
        faulthandler.dump_traceback_later(FLAGS.hub_limit + PERIOD_S, file=self._fd)

    def look(self) -> None:
        """One look, as every `PERIOD_S` seconds."""
        busy_s = self.hub.busy_s()
        if busy_s < PERIOD_S / 2:
            self._has_dumped, self._dumped_usr1, self._asked_s = False, 0, None
            return
        if busy_s >= FLAGS.hub_limit and not self._has_dumped:
            self._has_dumped = True
            self.dump(f"the hub stands still for {busy_s:.1f} s")
        self._obey(self._signals.unread())

    def _obey(self, names: list[str]) -> None:
        asked = names.count("USR1")
        if asked > self._dumped_usr1:
            self._dumped_usr1 = asked
            self.dump("USR1")
        if "QUIT" in names or names.count("INT") > 1:
            self._end(exception.EXIT_HARD_STOP)
        if "TERM" in names or "INT" in names:
            now_s = time.monotonic()
            self._asked_s = self._asked_s or now_s
            if now_s - self._asked_s >= self._patience_s:
                self.dump("a stop was asked for and the hub does not turn")
                self._end(exception.EXIT_DRAIN_TIMED_OUT)


def _write(fd: int, data: bytes) -> None:
    """All of it, or what is taken before nobody reads any more: a full pipe must not stop the hub, nor end it."""
    os, poll = green.original("os"), green.original("select").poll()
    poll.register(fd, POLLOUT)
    deadline_s = time.monotonic() + READER_S
    while data and poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
        try:
            data = data[os.write(fd, data[:PIPE_BUF]) :]
        except BlockingIOError:
            continue  # somebody else was quicker
        except OSError:
            return  # nobody will ever read it
