"""The broker inside a process that lives on an eventlet hub (nova-combined): one greenlet drives the loop.

    server = server.embedded(["--port=0", "--state_path=/var/lib/nova"])
    server.start()
    ... server.url ...
    server.stop()

A broker that has a process to itself (`main`) needs none of this, nor eventlet.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nova import green
from nova.broker import admin, main
from nova.broker.broker import Broker
from nova.broker.connection import Connection
from nova.broker.loop import Loop


class Server:
    """Serves `broker` on `listener`, an unpatched socket (`green.original("socket")`)."""

    def __init__(self, broker: Broker, listener: Any) -> None:
        self.broker = broker
        self.address, self.port = listener.getsockname()[:2]
        native = green.original("select").epoll, green.original("_thread").start_new_thread
        self._loop = Loop(broker, *native)
        self._loop.listen(listener, lambda peer: Connection(broker, peer))
        self._greenlet: Any = None

    @property
    def url(self) -> str:
        """Where its user connects to, with the password."""
        return f"amqp://{main.USER}:{self.broker.users[main.USER]}@{self.address}:{self.port}//"

    def listen_for_admin(self, listener: Any) -> None:
        self._loop.listen(listener, lambda peer: admin.AdminConnection(self.broker))

    def start(self) -> None:
        """Accepts from now on."""
        self._greenlet = green.spawn(self._run)

    def stop(self) -> None:
        """Tells every client 320 CONNECTION_FORCED, waits for their answers, and writes the journal.

        Raises `OSError` where the journal could not be written.
        """
        if self._greenlet is not None:
            self._greenlet.kill()  # it waits in `_turn`, or it would not be us who run
        self._loop.begin_stop()
        deadline_s = time.monotonic() + main.STOP_TIMEOUT_S
        self._loop.turn(0)
        while not self._loop.is_quiet and time.monotonic() < deadline_s:
            self._turn(deadline_s - time.monotonic())
        self._loop.close()
        self.broker.close()

    def _run(self) -> None:
        while True:
            self._turn(self._loop.timeout_s())

    def _turn(self, timeout_s: float | None) -> None:
        if timeout_s == 0:
            green.sleep(0)  # the hub's others first: a flood must not starve them
        else:
            with contextlib.suppress(TimeoutError):
                green.wait_read(self._loop.fileno(), timeout_s)
        self._loop.turn(0)


def embedded(flags: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> Server:
    """A server from nova-broker's own flags, not started yet. Raises `JournalError` and `OSError`."""
    sockets = green.original("socket")
    options = main.parser(environ).parse_args(flags)
    server = Server(main.make_broker(options), main.listen(options.listen, options.port, sockets))
    server.listen_for_admin(admin.listen(main.folder(options), sockets))
    return server
