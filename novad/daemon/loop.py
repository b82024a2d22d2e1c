"""The daemon: one loop that owns all state, and the doors through which news reaches it."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from novad import __version__
from novad.core import wire
from novad.core.messages import Event, Restart, Start, Stop
from novad.core.place import Place
from novad.core.process import ALIVE, Process
from novad.core.spec import Cluster
from novad.daemon import adoption, harm, report, told, upgrade, verbs
from novad.daemon.audience import Audience
from novad.daemon.birth import Wiring
from novad.daemon.changes import Changes
from novad.daemon.diff import Difference
from novad.daemon.effects import Effects
from novad.daemon.history import PastExit
from novad.daemon.lease import Lease
from novad.daemon.supervisor import Supervisor
from novad.daemon.watching import Reports
from novad.host import clock, proc
from novad.host.control import Connection, ControlSocket, Desk
from novad.host.disk import Disk
from novad.host.hub import Mailbox, Timer
from novad.host.journal import Journal
from novad.host.notify import Notification, NotifySocket
from novad.host.record import Records
from novad.host.signals import Signals
from novad.host.usage import Meter

# A daemon that nobody gave a cluster is the rest of a client that died between two steps.
EMPTY_S = 10.0
# Who comes back so much later than was asked for was not running, or the clock has jumped.
STANDSTILL_S = 1.0
# So long a daemon that ends waits for a slow disk.
LEAVE_S = 5.0
WHY_LINES = 20
# Nobody means anything by these, and their default would end us.
MEANINGLESS = (
    signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class About:
    """An event for one process."""

    name: str
    event: Event


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of a client."""

    connection: Connection
    request: wire.Request


@dataclass(frozen=True, slots=True)
class Act:
    """Anything else that must happen in the loop."""

    act: Callable[[], None]


class Daemon:
    """One cluster's daemon; `run` returns when it is to end."""

    def __init__(self, place: Place, lock_fd: int, soft_nofile: int) -> None:
        self._place = place
        self._lock_fd = lock_fd
        self._soft_nofile = soft_nofile
        self._mailbox: Mailbox[About | Asked | Act] = Mailbox()
        self._running = True
        self._seen_s = clock.now_s()
        self.started_s = clock.now_s()
        self.is_leaving = False
        self.lease = Lease()
        # Process and incarnation -> the last signal that a client had sent to it.
        self.signalled: dict[tuple[str, int], int] = {}
        self.survivors: dict[str, list[tuple[int, str, str]]] = {}
        self.seats: dict[str, Connection] = {}
        self.harms: list[harm.Harm] = []
        self.audience = Audience(self._follow)
        self.disk = Disk(lambda seconds: self.journal.write("slow_disk", seconds=round(seconds, 3)))
        self.journal = Journal(place.journal, self.disk)
        notify_path = f"{place.run_dir}/notify"
        wiring = Wiring(
            place.socket, notify_path, os.path.basename(place.run_dir), {resource.RLIMIT_NOFILE: soft_nofile}
        )
        reports = Reports(
            lambda name, event: self._mailbox.put(About(name, event)),
            self.audience.tell_lines,
            lambda name, text: self.audience.tell({"type": "probe", "name": name, "text": text}),
            self._on_survivors,
            lambda text: self.journal.write("template", text=text),
            lambda: self._notify.receive(),
        )
        self._records = Records(place.run_dir, self.disk)
        effects = Effects(wiring, self._records, reports, self.disk)
        self.supervisor = Supervisor(effects, self._records, self.journal, self._on_change)
        self._meter = Meter()
        self._notify = NotifySocket(
            notify_path,
            lambda pid: self.supervisor.effects.children.speaker(pid) is not None,
            self._on_notification,
        )
        self._signals = Signals((signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, *MEANINGLESS), self._on_signal)
        self._control = self._listen()
        self.changes = Changes(
            self.supervisor, self._records, self.post, lambda text: self.journal.write("watch", text=text)
        )
        adoption.resume(self.supervisor, self._records, upgrade.read_handover(place.run_dir))
        self.changes.resume()
        Timer(EMPTY_S, lambda: self.post(self._end_if_empty))

    def _listen(self) -> ControlSocket:
        desk = Desk(lambda connection, request: self._mailbox.put(Asked(connection, request)), self.disk.settle)
        return ControlSocket(self._place.socket, desk)

    def post(self, act: Callable[[], None]) -> None:
        """Have `act` called in the loop."""
        self._mailbox.put(Act(act))

    # -- the loop

    def run(self) -> None:
        """Handle events until `end`."""
        while self._running:
            self._wait()
            while self._mailbox:
                self._handle(self._mailbox.take())
            self._notice_standstill()
            self.supervisor.tick()
            self.supervisor.settle()
            self.audience.check()

    def _wait(self) -> None:
        """Until there is news or a timer is due."""
        began_s = self._notice_standstill()
        due_s = self.supervisor.next_deadline_s()
        timeout_s = None if due_s is None else max(due_s - began_s, 0.0)
        self._mailbox.wait(timeout_s)
        if timeout_s is None:
            self._seen_s = clock.now_s()
        else:
            self._notice_standstill(timeout_s)

    def _notice_standstill(self, expected_s: float = 0.0) -> float:
        """The present. Who was stopped or suspended since the last look, at work or in a wait of `expected_s`, heard
        nobody: a ping or an answer that came in that time is not late because of that."""
        now_s = clock.now_s()
        passed_s, self._seen_s = now_s - self._seen_s, now_s
        if passed_s > expected_s + STANDSTILL_S:
            self.journal.write("standstill", seconds=round(passed_s - expected_s, 3))
            self.supervisor.postpone(passed_s)
        return now_s

    def _handle(self, item: About | Asked | Act) -> None:
        match item:
            case About(name, event):
                self.supervisor.apply(name, event)
                # Before the next item: a restart after a crash waits for nobody's bookkeeping.
                self.supervisor.settle()
            case Asked(connection, request):
                if connection.is_open:
                    verbs.answer(self, connection, request)
                connection.handled()
            case Act(act):
                act()

    def end(self) -> None:
        """Leave the loop after this turn."""
        self._running = False

    def upgrade(self) -> None:
        """Become the code that is on the disk now; returns only when that fails.

        Everything that a new daemon needs is written before. The control socket goes first: who connects in the
        moment of the exec must find nobody and try again, not a listener that dies with its clients in the queue.
        """
        harm.end(self, list(self.harms))
        self.journal.write("upgrade", pid=os.getpid(), version=__version__)
        handover = upgrade.write_handover(self._place.run_dir, self.supervisor.effects.outputs)
        self._control.close()
        self.disk.drain(upgrade.CHECK_S)
        try:
            upgrade.exec_again(self._place, self._lock_fd, self._soft_nofile, handover)
        finally:
            self._control = self._listen()

    def close(self) -> None:
        """Take down sockets and files."""
        self.audience.tell({"type": "ended"})
        self._control.close()
        self._notify.close()
        self._signals.close()
        self.changes.close()
        self.supervisor.effects.templates.close()
        for output in self.supervisor.effects.outputs.values():
            output.close()
        self.journal.write("down", pid=os.getpid())
        self.journal.close()
        self.disk.close(LEAVE_S)
        if not any(process.state in ALIVE for process in self.supervisor.processes.values()):
            self._records.clear()

    # -- news

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self.supervisor.effects.stops.hear()
            self.supervisor.effects.children.reap_orphans()
        elif number in (signal.SIGTERM, signal.SIGINT):
            self.post(lambda: self.go_down(f"novad got {report.signal_name(number)}"))

    def lease_ended(self) -> None:
        """An owner of this cluster is gone, however that came."""
        self.lease.holders -= 1
        if self.lease.holders == 0:
            self.owner_ended()

    def owner_ended(self, pid: int | None = None) -> None:
        """The owner is gone, or the process that it named as its own owner."""
        cause = "its owner is gone" if pid is None else f"its owner (pid {pid}) is gone"
        self.post(lambda: self.go_down(cause, self.lease.grace_s))

    def go_down(self, cause: str, timeout_s: float | None = None) -> None:
        """Stop everything, then end."""
        if self.is_leaving:
            return
        self.is_leaving = True
        self.journal.write("going_down", cause=cause)
        self.supervisor.stop(list(self.supervisor.processes), Stop(timeout_s, cause=cause))
        self._end_when_stopped()

    def _end_when_stopped(self) -> None:
        alive = [process for process in self.supervisor.processes.values() if process.state in ALIVE]
        if all(process.spec.name in self.survivors for process in alive):
            self.end()
        else:
            self._when_changed = self._end_when_stopped

    _when_changed: Callable[[], None] | None = None

    def _end_if_empty(self) -> None:
        if self.supervisor.cluster is None:
            self.end()

    def _on_notification(self, notification: Notification) -> None:
        effects, fields = self.supervisor.effects, notification.fields
        child = effects.children.speaker(notification.pid)
        if child is None:
            return
        if fields.get("READY") == "1":
            effects.watching.said_ready(child.name)
        before = self.supervisor.processes[child.name].status_text
        events = told.events(fields, child.incarnation, before)
        pid = told.main_pid(fields)
        followed = None if pid is None else effects.follow(child, pid)
        for event in [*events, *([] if followed is None else [followed])]:
            self._mailbox.put(About(child.name, event))

    def _on_change(self, old: Process, new: Process) -> None:
        if new.state in ("starting", "stopped", "done", "failed"):
            self.survivors.pop(new.spec.name, None)
        if new.state != old.state or new.status_text != old.status_text or new.pid != old.pid:
            row = self.rows([new.spec.name])[0]
            change = {
                "from": old.state,
                "cause": new.cause,
                "at": clock.wall(),
                "crashed": report.has_crashed(old, new),
            }
            self.audience.tell({"type": "state", **change, **row})
        if self._when_changed is not None:
            self.post(self._when_changed)
            self._when_changed = None

    def _on_survivors(self, name: str, found: list[tuple[int, str, str]]) -> None:
        if found:
            self.survivors[name] = found

    def _follow(self, names: set[str]) -> None:
        for name, output in self.supervisor.effects.outputs.items():
            output.is_followed = name in names

    # -- documents

    def rows(self, names: list[str]) -> list[dict[str, Any]]:
        """`status` rows without usage."""
        supervisor, now_s = self.supervisor, clock.now_s()
        rows = [
            report.process_row(supervisor.processes[name], supervisor.graph, supervisor.processes, now_s)
            for name in names
        ]
        for row in rows:
            if row["state"] == "starting":
                row["awaiting"] = supervisor.effects.watching.seen.get(row["name"])
            if row["pid"] is not None and supervisor.effects.is_paused(row["name"], row["pid"]):
                row["note"] = f"paused, {row['note']}" if row["note"] else "paused"
        return rows

    def status(self, names: list[str], usage: bool) -> dict[str, Any]:
        """The document of `status --json`."""
        rows = self.rows(names)
        if usage:
            self._add_usage(rows)
        cluster = self.supervisor.cluster
        return {
            "schema": 1,
            "project": cluster.project if cluster else None,
            "namespace": self._place.namespace,
            "config": self._place.config,
            "digest": cluster.digest if cluster else None,
            "files": list(cluster.files) if cluster else [],
            "files_absent": list(cluster.files_absent) if cluster else [],
            "files_globs": list(cluster.files_globs) if cluster else [],
            "files_digest": cluster.files_digest if cluster else None,
            "profile": cluster.profile if cluster else None,
            "daemon": {
                "pid": os.getpid(),
                "version": __version__,
                "uptime_s": clock.now_s() - self.started_s,
                "disk": {"waiting": self.disk.waiting, "late_s": self.disk.late_s},
            },
            "processes": rows,
        }

    def _add_usage(self, rows: list[dict[str, Any]]) -> None:
        trees = {row["name"]: [row["pid"], *proc.descendants(row["pid"])] for row in rows if row["pid"]}
        measured = self._meter.measure(trees)
        for row in rows:
            if row["name"] in measured:
                row["cpu_percent"] = measured[row["name"]].cpu_percent
                row["rss_bytes"] = measured[row["name"]].rss_bytes

    def why(self, name: str) -> dict[str, Any]:
        """Everything that `why` tells of one process."""
        process = self.supervisor.processes[name]
        row = self.rows([name])[0]
        self.disk.settle()
        return {
            **row,
            "since_s": clock.now_s() - process.since_s,
            "cause": process.cause,
            "awaiting": self.supervisor.effects.watching.seen.get(name),
            "argv": list(process.spec.argv),
            "cwd": process.spec.cwd,
            "exits": [self._exit_row(name, past) for past in self.supervisor.history.of(name)],
            "repeating": self.supervisor.history.repeating(name, process.spec.log.path),
            "failures": process.failures,
            "give_up_after": process.spec.give_up_after,
            "hurts": [
                other
                for other in self.supervisor.graph.dependents(name)
                if self.supervisor.processes[other].state == "waiting"
            ],
        }

    def _exit_row(self, name: str, past: PastExit) -> dict[str, Any]:
        path = self.supervisor.processes[name].spec.log.path
        lines = past.last_lines(path, WHY_LINES)
        signalled = past.ended.signal is not None and (
            self.signalled.get((name, past.ended.incarnation)) == past.ended.signal
        )
        return {**report.exit_row(past.ended, past.pid, past.at, lines), "signalled": signalled}

    # -- reload

    def reload(self, cluster: Cluster, found: Difference) -> list[str]:
        """Apply a configuration: stop what is gone, restart what changed, start what is new.

        Returns the processes that have to get ready for it to be a success.
        """
        supervisor = self.supervisor
        supervisor.remember(cluster)
        supervisor.stop(found.removed, Stop(cause="novad reload"))
        running = found.restarted(supervisor.processes)
        supervisor.replace(cluster)
        fresh = [name for name in found.added if supervisor.processes[name].spec.autostart]
        for name in running:
            supervisor.apply(name, Restart(cause="novad reload"))
        supervisor.keep(fresh)
        for name in fresh:
            supervisor.apply(name, Start(cause="novad reload"))
        supervisor.settle()
        self.changes.refresh()
        self.journal.write("reload", added=found.added, removed=found.removed, changed=list(found.changed))
        return [*running, *fresh]
