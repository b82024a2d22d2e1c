"""`nova_chaos`: harm that is asked for, and undone."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from novad.client.link import connect
from novad.core.errors import NoSuchService
from novad.testing.handle import Nova, Unready

NOTICED_S = 10.0
UNDONE_S = 60.0


class Chaos:
    """What is done through it is no crash that fails the test."""

    def __init__(self, nova: Nova) -> None:
        self._nova = nova
        # Process and kind; novad undoes them by itself when this process ends.
        self._held: dict[tuple[str, str], None] = {}
        self._stopped: dict[str, None] = {}
        self._killed: dict[str, None] = {}

    def kill(self, name: str, signal: str = "KILL") -> None:
        """Returns when novad has noticed: the process is not ready any more, or is again.

        Raises `Unready` where it survives the signal, `NoSuchService`.
        """
        for process in self._nova.names(name):
            self._killed[process] = None
            with connect(self._nova.cluster.place) as link:
                link.request("subscribe", states=True, lines=None)
                pid = self._nova.status(process)["pid"]
                if pid is None:
                    raise NoSuchService(f"{process} does not run")
                self._nova.signal(process, signal)
                until_s = time.monotonic() + NOTICED_S
                while (event := link.next_event(max(0.0, until_s - time.monotonic()))) is not None:
                    if has_died(event, process, pid):
                        break
                else:
                    raise Unready(f"{process} (pid {pid}) lives {NOTICED_S:g} s after SIG{signal}")

    def pause(self, name: str) -> None:
        """SIGSTOP to the whole group: it neither answers nor ends, as if it were cut off."""
        self._hold(name, "freeze")

    def resume(self, name: str) -> None:
        self._end(name, "freeze")

    def drop_port(self, name: str) -> None:
        """Nothing arrives at its ports: connections stall, new ones get no answer. Raises `NovadError`."""
        self._hold(name, "drop-port")

    def open_port(self, name: str) -> None:
        self._end(name, "drop-port")

    def fill_log(self, name: str) -> None:
        """Its log cannot be written, as on a full disk; lines are lost, and counted in the log afterwards."""
        self._hold(name, "fill-log")

    def clear_log(self, name: str) -> None:
        self._end(name, "fill-log")

    def _hold(self, name: str, kind: str) -> None:
        for process in self._nova.names(name):
            self._nova.cluster.ask("harm", names=[process], kind=kind)
            self._held[process, kind] = None

    def _end(self, name: str, kind: str) -> None:
        for process in self._nova.names(name):
            self._nova.cluster.ask("harm", names=[process], kind=kind, undo=True)
            self._held.pop((process, kind), None)

    def stop(self, name: str) -> None:
        """Stop it in good order until the test ends, or `start`."""
        for process in self._nova.names(name):
            self._stopped[process] = None
        self._nova.stop(name)

    def start(self, name: str) -> None:
        self._nova.start(name)
        for process in self._nova.names(name):
            self._stopped.pop(process, None)

    def undo(self) -> None:
        """Everything that was harmed runs again and is ready. Raises `Unready`."""
        for process, kind in list(self._held):
            self._end(process, kind)
        harmed = {**self._killed, **self._stopped}
        for process in self._stopped:
            with contextlib.suppress(NoSuchService):
                self._nova.cluster.ask("start", names=[process])
        for process in harmed:
            if not self._nova.spec(process).oneshot:
                self._nova.wait(process, "ready", UNDONE_S)


def has_died(event: dict[str, Any], process: str, pid: int) -> bool:
    return event.get("type") == "state" and event["name"] == process and event.get("pid") != pid
