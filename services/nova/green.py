"""Green threads: the only module of nova that imports eventlet.

Everything else says `from nova import green`. The seam exists because eventlet is in maintenance: what the
services need of it is listed here and nowhere else. Invariant: importing this module patches nothing;
`patch()` does, and `nova.launch` calls it before any other import.
"""

from __future__ import annotations

import gc
import os
import time
import warnings

# Half of eventlet's import time is dnspython; services talk to loopback or numeric addresses, and a name that
# must be resolved goes through `tpool`.
os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet
    import eventlet.event
    import eventlet.greenio
    import eventlet.hubs
    import eventlet.patcher
    import eventlet.queue
    import eventlet.semaphore
    import eventlet.tpool
    import eventlet.wsgi

spawn = eventlet.spawn
spawn_n = eventlet.spawn_n
spawn_after = eventlet.spawn_after
kill = eventlet.kill
sleep = eventlet.sleep
getcurrent = eventlet.getcurrent
GreenletExit = eventlet.greenlet.GreenletExit
GreenPool = eventlet.GreenPool
GreenThread = eventlet.greenthread.GreenThread
Timeout = eventlet.Timeout
greenlet = eventlet.greenlet.greenlet
Event = eventlet.event.Event
Queue = eventlet.queue.Queue
QueueEmpty = eventlet.queue.Empty
LightQueue = eventlet.queue.LightQueue
Semaphore = eventlet.semaphore.Semaphore
GreenSocket = eventlet.greenio.GreenSocket
wsgi = eventlet.wsgi
tpool = eventlet.tpool
hubs = eventlet.hubs
original = eventlet.patcher.original
is_monkey_patched = eventlet.patcher.is_monkey_patched


def patch() -> None:
    """Make the standard library cooperative; must run before anything else imports `socket` or `threading`."""
    eventlet.monkey_patch()


def patch_psycopg2() -> None:
    """Make psycopg2, which is C, wait in the hub instead of in libpq."""
    from eventlet.support import psycopg2_patcher

    psycopg2_patcher.make_psycopg_green()


class HubWatch:
    """How long the hub's turns take, measured without waking it: times are noted around its wait in the kernel.

    A native thread may read it. The hub is stuck when `busy_s()` grows; `lag_s()` is its longest turn lately, the
    same for whoever asks: all services of a process, and its metrics.
    """

    def __init__(self, window_s: float = 10.0) -> None:
        """`window_s`: a long turn is seen for at least that, and at most twice that."""
        self._began_s: float | None = None
        self._window_s = window_s
        self._window_ends_s = 0.0
        self._longest_s = 0.0
        self._longest_before_s = 0.0
        hub = eventlet.hubs.get_hub()
        poll = getattr(hub, "do_poll", None)
        if poll is not None:
            hub.do_poll = self._around(poll)

    def _around(self, poll):
        monotonic = time.monotonic

        def watched(seconds):
            if self._began_s is not None:
                self._note(self._began_s, monotonic())
            self._began_s = None
            try:
                return poll(seconds)
            finally:
                self._began_s = monotonic()

        return watched

    def busy_s(self) -> float:
        """Seconds that the hub's present turn has lasted; 0 while it waits."""
        began_s = self._began_s
        return time.monotonic() - began_s if began_s is not None else 0.0

    def lag_s(self) -> float:
        """The longest turn of late, in seconds."""
        return max(self._longest_before_s, self._longest_s, self.busy_s())

    def _note(self, began_s: float, ended_s: float) -> None:
        if ended_s >= self._window_ends_s:
            self._longest_before_s, self._longest_s = self._longest_s, 0.0
            self._window_ends_s = ended_s + self._window_s
        self._longest_s = max(self._longest_s, ended_s - began_s)


def count() -> int:
    """How many greenlets wait for something."""
    return sum(
        1
        for item in gc.get_objects()
        if isinstance(item, eventlet.greenlet.greenlet) and item.gr_frame is not None
    )


def wait_write(fd: int) -> None:
    """Suspend this greenlet until `fd` is writable."""
    eventlet.hubs.trampoline(fd, write=True)


def wait_read(fd: int, timeout_s: float | None = None) -> None:
    """Suspend this greenlet until `fd` is readable; raises `TimeoutError` after `timeout_s` seconds."""
    eventlet.hubs.trampoline(fd, read=True, timeout=timeout_s, timeout_exc=TimeoutError)


def schedule(callback, *args) -> None:
    """Run `callback` in the hub at the end of this turn; it must not block."""
    eventlet.hubs.get_hub().schedule_call_global(0, callback, *args)
