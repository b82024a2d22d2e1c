"""A process on somebody's terminal (`novad fg`): it is held for a client, who runs it, until that client is gone.

Three requests of one connection: `fg` answers when the supervised child is gone and it is the client's turn,
`spawned` says which pid it is now, `ended` how it ended. The connection is the hold: when it closes, whatever is left
of the child is stopped, and supervision resumes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from novad.core import wire
from novad.core.errors import NovadError, UsageError
from novad.core.messages import Seat, Start, Vacate
from novad.core.process import ALIVE, Process, describe
from novad.daemon.audience import Answer, Waiter
from novad.daemon.requests import argument, selected
from novad.host.control import Connection

if TYPE_CHECKING:
    from novad.daemon.loop import Daemon

GONE = "its terminal is gone"


def fg(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    """Hold one process for this connection."""
    names = selected(daemon, request)
    if len(names) != 1:
        raise UsageError(
            f"fg takes one process, not {len(names)}: {', '.join(names)}", f"novad fg {names[0]}" if names else ""
        )
    name, supervisor = names[0], daemon.supervisor
    process = supervisor.processes[name]
    seat = process.next_seat or (process.seat if process.state in ALIVE else None)
    if seat is not None:
        raise NovadError(f"{name} is on {seat.terminal} already", "end it there first")
    terminal = argument(request, "terminal", str, "a terminal")
    needed = [item for item in supervisor.graph.closure([name]) if item != name]
    supervisor.keep([name, *needed])
    for item in needed:
        if supervisor.processes[item].state in ("stopped", "failed"):
            supervisor.apply(item, Start(cause="novad fg"))
    supervisor.apply(name, Seat(terminal))
    supervisor.settle()
    connection.on_close.append(lambda: daemon.post(lambda: _vacate(daemon, name, connection)))
    daemon.seats[name] = connection
    with_log = argument(request, "log", bool, False)
    daemon.audience.wait(
        Waiter(
            connection,
            request,
            lambda: _turn(daemon, name, with_log),
            send=lambda result: _hand_over(daemon, connection, request, name, result),
        )
    )


def _vacate(daemon: Daemon, name: str, connection: Connection) -> None:
    """The client is gone, however that came."""
    if daemon.seats.get(name) is connection:
        del daemon.seats[name]
        daemon.supervisor.apply(name, Vacate(GONE))


def _turn(daemon: Daemon, name: str, with_log: bool) -> Answer:
    """What the client needs to run it, once the offer is there."""
    effects, process = daemon.supervisor.effects, daemon.supervisor.processes.get(name)
    if process is None or (process.seat is None and process.next_seat is None):
        return NovadError(f"{name} did not come to the terminal: {_reason(process)}", f"novad why {name}")
    offer = effects.offers.get(name)
    if offer is None:
        return None
    spec = process.spec
    return {
        "name": name,
        "incarnation": offer.incarnation,
        "argv": list(spec.argv),
        "cwd": spec.cwd,
        "env": effects.wiring.environment(effects.env, spec, offer.incarnation),
        "limits": dict(spec.limits),
        "nice": spec.nice,
        "listen": [port for port, _ in effects.ports.passed(spec)],
        "log": with_log,
    }


def _hand_over(
    daemon: Daemon, connection: Connection, request: wire.Request, name: str, result: dict[str, Any]
) -> None:
    """The answer, and with it the lock, the listening sockets and the pipe of the log."""
    effects, spec = daemon.supervisor.effects, daemon.supervisor.processes[name].spec
    pipes = [effects.outputs[name].open_pipe("o")] if result["log"] else []
    try:
        fds = [effects.offers[name].lock, *(fd for _, fd in effects.ports.passed(spec)), *pipes]
        connection.reply(request, result, fds)
    finally:
        for pipe in pipes:
            os.close(pipe)


def _reason(process: Process | None) -> str:
    if process is None:
        return "it is defined no longer"
    if process.exit is not None and process.exit.error:
        return describe(process.exit)
    return f"it is {process.state}" + (f" ({process.cause})" if process.cause else "")


def spawned(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    """The client has forked; its child waits for our word before it executes anything."""
    name, pid = _held_by(daemon, connection, request), argument(request, "pid", int, 0)
    supervisor = daemon.supervisor
    process = supervisor.processes[name]
    if name not in supervisor.effects.offers or process.seat is None:
        raise NovadError(f"{name} was stopped meanwhile", f"novad status {name}")
    with_log = argument(request, "log", bool, False)
    try:
        event = supervisor.effects.take(name, process.seat.terminal, pid, with_log)
    except OSError as error:
        raise NovadError(f"pid {pid}: {error.strerror}") from error
    supervisor.apply(name, event)
    if not with_log:
        supervisor.effects.watching.cannot_read_log(name)
    connection.reply(request, {})


def ended(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    """How the child ended: only its parent can say that on every kernel. Answers when its tree is gone."""
    name, effects = _held_by(daemon, connection, request), daemon.supervisor.effects
    child = effects.child(name)
    if child is not None and child.pid == argument(request, "pid", int, 0):
        child.told = argument(request, "status", int, 0)
    is_there = child is not None
    daemon.audience.wait(
        Waiter(connection, request, lambda: None if is_there and effects.child(name) is child else {})
    )


def _held_by(daemon: Daemon, connection: Connection, request: wire.Request) -> str:
    name: str = argument(request, "name", str, "")
    if daemon.seats.get(name) is not connection:
        raise UsageError(f"{request.verb}: {name or 'nothing'} is not held by this connection", "novad fg SVC")
    return name
