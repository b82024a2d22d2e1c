"""What clients may ask: one function a verb, from request to answer. docs/control.md is the contract.

Arguments are checked here, once. A verb changes the cluster only by putting events to processes; what takes
time is answered by a waiter when it has happened.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from novad import __version__
from novad.core import wire
from novad.core.errors import NotRunning, NovadError, UsageError
from novad.core.messages import Restart, Start, Stop
from novad.core.process import ALIVE
from novad.core.spec import Cluster, cluster_from_json, to_json
from novad.daemon import diff, foreground, harm, report, upgrade
from novad.daemon.audience import Answer, Subscriber, Waiter
from novad.daemon.effects import signal_number
from novad.daemon.requests import argument, selected
from novad.host import clock
from novad.host.control import Connection
from novad.host.launch import SpawnError

if TYPE_CHECKING:
    from novad.daemon.loop import Daemon

Verb = Callable[["Daemon", Connection, wire.Request], None]


def answer(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    """Perform one request. Every request gets exactly one answer, now or later."""
    verb = VERBS.get(request.verb)
    try:
        if request.v != wire.PROTOCOL:
            raise UsageError(
                f"the client speaks protocol {request.v}, this daemon (novad {__version__}) {wire.PROTOCOL}",
                "novad down with the version that started it, then novad up",
            )
        if verb is None:
            raise UsageError(
                f"unknown request: {request.verb}", "the client is newer than the daemon: novad down"
            )
        verb(daemon, connection, request)
    except NovadError as error:
        connection.fail(request, error)
    except Exception as error:
        # One request is not worth all services.
        traceback.print_exc()
        reason = f"novad failed at {request.verb}: {type(error).__name__}: {error}"
        connection.fail(request, NovadError(reason, "that is a bug of novad; .novad/novad.log has the traceback"))


def _ping(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    connection.reply(
        request,
        {
            "pid": os.getpid(),
            "version": __version__,
            "protocol": wire.PROTOCOL,
            "uptime_s": clock.now_s() - daemon.started_s,
        },
    )


def _up(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    _refuse_when_leaving(daemon)
    cluster = cluster_from_json(request.args.get("cluster"))
    loaded = daemon.supervisor.cluster is None
    if loaded:
        daemon.supervisor.remember(cluster)
        daemon.journal.write("up", pid=os.getpid(), version=__version__, profile=cluster.profile)
        daemon.supervisor.load(cluster)
        daemon.changes.refresh()
    seed = argument(request, "seed", int, None)
    if seed is not None:
        daemon.supervisor.shuffle(seed)
    changed = not loaded and _is_changed(daemon.supervisor.cluster, cluster)
    names = [] if not argument(request, "start", bool, True) else _to_start(daemon, request)
    if argument(request, "deps", bool, True):
        names = daemon.supervisor.graph.closure(names)
    _start_all(daemon, names, Start(cause="novad up"), rerun=False)
    connection.reply(request, {"names": names, "loaded": loaded, "changed": changed})


def _is_changed(old: Cluster | None, new: Cluster) -> bool:
    return old is not None and bool(diff.compare(old, new).moves)


def _to_start(daemon: Daemon, request: wire.Request) -> list[str]:
    if request.args.get("names"):
        return selected(daemon, request)
    processes = daemon.supervisor.processes.values()
    return [process.spec.name for process in processes if process.spec.autostart]


def _start_all(daemon: Daemon, names: list[str], event: Start, rerun: bool = True) -> None:
    """Start several; `rerun` starts one-shots again that are done."""
    supervisor = daemon.supervisor
    supervisor.keep(names)
    for name in names:
        process = supervisor.processes[name]
        if rerun or not (process.spec.oneshot and process.state == "done"):
            supervisor.apply(name, event)
    supervisor.settle()


def _start(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    once = argument(request, "once", bool, False)
    asked = selected(daemon, request)
    names = daemon.supervisor.graph.closure(asked) if argument(request, "deps", bool, True) else asked
    needed = [name for name in names if name not in asked]
    _start_all(daemon, [name for name in needed if _is_down(daemon, name)], Start(cause="novad start"))
    _start_all(daemon, asked, Start(once, "novad start"))
    connection.reply(request, {"names": names})


def _is_down(daemon: Daemon, name: str) -> bool:
    return daemon.supervisor.processes[name].state in ("stopped", "failed")


def _stop(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    stop_and_wait(daemon, connection, request, selected(daemon, request))


def stop_and_wait(
    daemon: Daemon,
    connection: Connection,
    request: wire.Request,
    names: list[str],
    then: Callable[[], None] | None = None,
) -> None:
    """Stop `names`; the answer comes when their trees are gone, or when the kernel keeps one alive."""
    timeout_s = argument(request, "timeout_s", (int, float), None)
    kill = argument(request, "kill", bool, False)
    supervisor = daemon.supervisor
    began_s = clock.now_s()
    alive = {name: process.pid for name, process in supervisor.processes.items() if process.state in ALIVE}
    for name in names:
        daemon.survivors.pop(name, None)
    supervisor.stop(names, Stop(timeout_s, kill, f"novad {request.verb}"))
    gone: dict[str, dict[str, Any]] = {}

    def done() -> Answer:
        left = []
        for name in names:
            process = supervisor.processes.get(name)
            # Who was started again by somebody else meanwhile is no longer ours to wait for, unless it is the end.
            awaited = ALIVE if then is not None else ("stopping",)
            if process is not None and (process.state in awaited or supervisor.is_leaving(name)):
                left.append(name)
            elif name in alive and name not in gone and not (process and process.pid == alive[name]):
                how = _how(process.exit) if process and process.exit else "gone"
                gone[name] = {"name": name, "how": how, "seconds": round(clock.now_s() - began_s, 3)}
        if any(name not in daemon.survivors for name in left):
            return None
        survivors = [{"name": name, "pid": pid, "command": command, "held": held}
                     for name in left for pid, command, held in daemon.survivors[name]]  # fmt: skip
        return {"stopped": list(gone.values()), "survivors": survivors}

    daemon.audience.wait(Waiter(connection, request, done, then))


def _how(ended: Any) -> str:
    return str(report.exit_text(ended))


def _restart(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    timeout_s = argument(request, "timeout_s", (int, float), None)
    supervisor = daemon.supervisor
    names = selected(daemon, request)
    if argument(request, "deps", bool, False):
        asked = set(names)
        names = [
            name
            for name in supervisor.graph.dependent_closure(names)
            # What is down stays down, and what was done once is not done again, unless somebody names it.
            if name in asked or supervisor.processes[name].state not in ("stopped", "done")
        ]
    supervisor.keep(names)
    before = {name: supervisor.processes[name].incarnation for name in names}
    for name in names:
        supervisor.apply(name, Restart(timeout_s, "novad restart"))
    supervisor.settle()

    def done() -> Answer:
        for name in names:
            process = supervisor.processes.get(name)
            if process is None or process.want == "down" or process.state in ("failed", "backoff", "done"):
                continue
            fresh = process.incarnation > before[name] and process.state in ("starting", "ready")
            if not fresh and process.state != "waiting":
                return None
        return {"names": names, "stopped": [], "survivors": []}

    daemon.audience.wait(Waiter(connection, request, done))


def _signal(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    name = str(argument(request, "signal", str, "")).upper()
    try:
        number = signal.Signals(int(name)).value if name.isdigit() else signal_number(name)
    except (KeyError, ValueError):
        raise UsageError(f"unknown signal: {name or '(none)'}", "kill -l lists them") from None
    group = argument(request, "group", bool, False)
    sent = []
    for process_name in selected(daemon, request):
        child = daemon.supervisor.effects.child(process_name)
        if child is not None and not child.is_dead:
            daemon.supervisor.effects.children.signal(child, number, group)
            daemon.supervisor.effects.outputs[process_name].note(f"sent {report.signal_name(number)}")
            daemon.signalled[process_name, child.incarnation] = number
            sent.append({"name": process_name, "pid": child.pid})
    connection.reply(request, {"signalled": sent})


def _status(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    names = selected(daemon, request)
    connection.reply(request, daemon.status(names, argument(request, "usage", bool, False)))


def _wait(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    goal = argument(request, "for", str, "ready")
    if goal not in GOALS:
        raise UsageError(f"cannot wait for {goal!r}", f"one of {', '.join(GOALS)}")
    names = selected(daemon, request)
    met, hopeless = GOALS[goal]

    def done() -> Answer:
        processes = [daemon.supervisor.processes[name] for name in names if name in daemon.supervisor.processes]
        if all(process.state in met for process in processes):
            return {"met": True}
        rows = daemon.rows([process.spec.name for process in processes if process.state in hopeless])
        if rows:
            unmet = [{"name": row["name"], "state": row["state"], "note": row["note"]} for row in rows]
            return {"met": False, "unmet": unmet}
        return None

    daemon.audience.wait(Waiter(connection, request, done))


GOALS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ready": (("ready", "done"), ("failed", "stopped")),
    "stopped": (("stopped", "done", "failed"), ()),
    "done": (("done",), ("failed", "stopped")),
}


def _subscribe(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    patterns = argument(request, "lines", list, None)
    lines: list[str] = []
    if patterns is not None:
        lines = selected(daemon, replace(request, args={"names": patterns}))
    subscriber = Subscriber(connection, request, argument(request, "states", bool, True), set(lines))
    outputs = daemon.supervisor.effects.outputs
    connection.reply(
        request,
        {
            "processes": daemon.rows(list(daemon.supervisor.processes)),
            "offsets": {name: outputs[name].length() for name in lines},
        },
    )
    daemon.audience.subscribe(subscriber)


def _why(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    if request.args.get("names"):
        names = selected(daemon, request)
    else:
        crashed = daemon.supervisor.history.last_crashed()
        names = [crashed] if crashed else []
    connection.reply(request, {"processes": [daemon.why(name) for name in names]})


def _lease(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    _refuse_when_leaving(daemon)
    held = daemon.lease_ended in connection.on_close
    release = argument(request, "release", bool, False)
    grace_s = argument(request, "grace_s", (int, float), None)
    owner_pid = argument(request, "owner_pid", int, None)
    if release and held:
        connection.on_close.remove(daemon.lease_ended)
        daemon.lease.holders -= 1
    elif not release and not held:
        connection.on_close.append(daemon.lease_ended)
        daemon.lease.holders += 1
    if grace_s is not None:
        daemon.lease.grace_s = float(grace_s)
    if owner_pid is not None:
        daemon.lease.watch(owner_pid, lambda: daemon.owner_ended(owner_pid))
    connection.reply(request, {"holders": daemon.lease.holders})


def _refuse_when_leaving(daemon: Daemon) -> None:
    """Whoever comes too late starts a daemon of its own."""
    if daemon.is_leaving:
        raise NotRunning("this novad is going down", "try again in a moment")


def _down(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    stop_and_wait(daemon, connection, request, list(daemon.supervisor.processes), daemon.end)


def _reload(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    new = cluster_from_json(request.args.get("cluster"))
    old = daemon.supervisor.cluster
    if old is None:
        raise NovadError("no cluster is loaded", "novad up")
    found = diff.compare(old, new)
    told = found.to_json(daemon.supervisor.processes)
    if argument(request, "dry_run", bool, False):
        connection.reply(request, told)
        return
    affected = daemon.reload(new, found)

    def done() -> Answer:
        """Ready, all that can be; or the first that is not brings the old definitions back."""
        supervisor = daemon.supervisor
        getting_ready, waiting = False, []
        for name in affected:
            process = supervisor.processes.get(name)
            if process is None or process.want == "down":
                continue
            if process.state == "waiting" and (stalled := supervisor.graph.stalled(name, supervisor.processes)):
                waiting.append({"name": name, "for": report.unmet_rows(stalled)})
                continue
            if process.failures or process.state == "failed":
                reason = process.cause
                daemon.reload(old, diff.compare(new, old))
                return NovadError(
                    f"{name} did not get ready with its new definition: {reason}; the old one is back",
                    f"novad logs {name}",
                )
            getting_ready |= process.state not in ("ready", "done")
        return None if getting_ready else {**told, "waiting": waiting}

    daemon.audience.wait(Waiter(connection, request, done))


def _upgrade(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    def then(reason: str) -> None:
        if reason:
            connection.fail(
                request, NovadError(reason, "nothing was changed; .novad/novad.log has the traceback")
            )
            return
        connection.reply(request, {"version": __version__})
        daemon.post(daemon.upgrade)

    upgrade.check(daemon.supervisor.effects.surroundings(), then)


def _spec(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    cluster = daemon.supervisor.cluster
    connection.reply(request, {"cluster": to_json(cluster) if cluster else None})


def _watch(daemon: Daemon, connection: Connection, request: wire.Request) -> None:
    on = argument(request, "on", bool, None)
    try:
        if on is not None:
            daemon.changes.switch(on)
    except (SpawnError, OSError) as error:
        raise NovadError(f"cannot watch files: {error}", "novad doctor says what is missing") from error

    def done() -> Answer:
        changes = daemon.changes
        return {"on": changes.is_on, "names": changes.names} if changes.is_settled else None

    daemon.audience.wait(Waiter(connection, request, done))


VERBS: dict[str, Verb] = {
    "down": _down,
    "ended": foreground.ended,
    "fg": foreground.fg,
    "harm": harm.harm,
    "lease": _lease,
    "ping": _ping,
    "reload": _reload,
    "restart": _restart,
    "signal": _signal,
    "spawned": foreground.spawned,
    "spec": _spec,
    "start": _start,
    "status": _status,
    "stop": _stop,
    "subscribe": _subscribe,
    "up": _up,
    "upgrade": _upgrade,
    "wait": _wait,
    "watch": _watch,
    "why": _why,
}
