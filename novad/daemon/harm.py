"""Harm that is asked for (`novad drill`, `nova_chaos`): it lasts until it is undone, or its client is gone.

The connection holds it: a client that is killed in the middle of a drill leaves no frozen service, no deaf port and no
full log behind. A harm is to one life of a process: what is started meanwhile is unharmed, its log excepted.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from novad.core import wire
from novad.core.errors import NovadError, UsageError
from novad.daemon.requests import argument, selected
from novad.host import deaf
from novad.host.child import Child
from novad.host.control import Connection

if TYPE_CHECKING:
    from novad.daemon.loop import Daemon


@dataclass(frozen=True, slots=True)
class Harm:
    """What was done to whom, for whom, and how it is undone."""

    connection: Connection
    name: str
    kind: str
    undo: Callable[[], None]


def harm(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    """Do `kind` to the processes, or with `undo` end what this connection has done to them (no kind: all of it)."""
    kind, names = argument(request, "kind", str, None), selected(daemon, request)
    if argument(request, "undo", bool, False):
        mine = [item for item in daemon.harms if item.connection is connection and item.name in names]
        undone = [item for item in mine if kind in (None, item.kind)]
        end(daemon, undone)
        connection.reply(request, {"names": [item.name for item in undone]})
        return
    if kind not in KINDS:
        raise UsageError(f"cannot do {kind!r} to a process", f"one of {', '.join(KINDS)}")
    for name in names:
        if any((item.name, item.kind) == (name, kind) for item in daemon.harms):
            raise NovadError(f"{name} has its {kind} already", "one drill after another")
        undo = KINDS[kind](daemon, name)
        daemon.harms.append(Harm(connection, name, kind, undo))
        connection.on_close.append(lambda: daemon.post(lambda: _gone(daemon, connection)))
    connection.reply(request, {"names": names})


def _gone(daemon: Daemon, connection: Connection) -> None:
    end(daemon, [item for item in daemon.harms if item.connection is connection])


def end(daemon: Daemon, harms: list[Harm]) -> None:
    """Undo them."""
    for item in harms:
        daemon.harms.remove(item)
        item.undo()
        if item.name in daemon.supervisor.effects.outputs:
            daemon.supervisor.effects.outputs[item.name].note(f"drill {item.kind} is over")


def _begin(daemon: Daemon, name: str, kind: str) -> Child:
    """The child that it is done to. Raises `NovadError` where none is alive."""
    child = daemon.supervisor.effects.child(name)
    if child is None or child.is_dead:
        raise NovadError(f"{name} does not run", f"novad start {name}")
    daemon.supervisor.effects.outputs[name].note(f"drill {kind}")
    return child


def _freeze(daemon: Daemon, name: str) -> Callable[[], None]:
    child, effects = _begin(daemon, name, "freeze"), daemon.supervisor.effects
    effects.children.signal(child, signal.SIGSTOP, group=True)

    def thaw() -> None:
        # Once its tree is gone its number may be a stranger's.
        if effects.child(name) is child:
            effects.children.signal(child, signal.SIGCONT, group=True)

    return thaw


def _drop_port(daemon: Daemon, name: str) -> Callable[[], None]:
    """Nothing arrives at the process's ports: as behind a firewall that drops."""
    spec = daemon.supervisor.processes[name].spec
    ports = {port.number for port in spec.ports.values()}
    if not ports:
        raise NovadError(f"{name} has no port that novad knows", f"give [services.{spec.service}] its `ports`")
    child, children = _begin(daemon, name, "drop-port"), daemon.supervisor.effects.children
    hint = "novad drill freeze makes a process deaf without touching its sockets"
    try:
        count = deaf.deafen([child.pid, *children.tree(child)], ports)
    except OSError as error:
        raise NovadError(f"{name}: its sockets cannot be reached: {error.strerror}", hint) from error
    if not count:
        listed = ", ".join(map(str, sorted(ports)))
        raise NovadError(f"{name} has no socket on port {listed}: somebody outside its tree has", hint)
    return lambda: _hear(daemon, name, child, ports)


def _hear(daemon: Daemon, name: str, child: Child, ports: set[int]) -> None:
    """Also the successor of `child` gets its filters off: a socket that novad listens on outlives it."""
    effects = daemon.supervisor.effects
    living = {
        id(found): found for found in (child, effects.child(name)) if found is not None and not found.is_dead
    }
    pids = [pid for found in living.values() for pid in (found.pid, *effects.children.tree(found))]
    try:
        deaf.cure(pids, ports)
        effects.ports.cure(name)
    except OSError as error:
        daemon.journal.write("harm", name=name, text=f"drop-port: {error}")


def _fill_log(daemon: Daemon, name: str) -> Callable[[], None]:
    """Every write into its log fails as on a full disk."""
    _begin(daemon, name, "fill-log")
    output = daemon.supervisor.effects.outputs[name]
    output.fill(True)
    return lambda: output.fill(False)


KINDS: dict[str, Callable[[Daemon, str], Callable[[], None]]] = {
    "drop-port": _drop_port, "fill-log": _fill_log, "freeze": _freeze,
}  # fmt: skip
