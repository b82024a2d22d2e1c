"""The table of processes and the one way to change it: an event in, a step, its effects performed.

Everything here runs in the loop's greenlet; the news of children, probes and services reaches it through the
mailbox. Nothing polls: the loop sleeps until the nearest deadline.
"""

from __future__ import annotations

import heapq
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import replace

from novad.core.errors import NovadError
from novad.core.machine import step
from novad.core.messages import Event, Redefine, Released, Restart, Stop, Tick
from novad.core.order import Graph
from novad.core.process import ALIVE, Process, next_deadline_s, postpone
from novad.core.record import record
from novad.core.spec import Cluster, ProcessSpec, to_json
from novad.core.stopping import Step
from novad.daemon import report
from novad.daemon.effects import Effects
from novad.daemon.history import History, PastExit
from novad.host import clock, proc
from novad.host.journal import Journal
from novad.host.record import Records

STARTS_PER_CORE = 4


class Supervisor:
    """Runs the processes of one cluster."""

    def __init__(
        self,
        effects: Effects,
        records: Records,
        journal: Journal,
        on_change: Callable[[Process, Process], None],
    ) -> None:
        self.effects = effects
        self._records = records
        self._journal = journal
        self._on_change = on_change
        self.cluster: Cluster | None = None
        self.graph = Graph(())
        self.processes: dict[str, Process] = {}
        self.history = History(journal)
        self._deadlines: list[tuple[float, str]] = []
        self._leaving: dict[str, Stop] = {}
        self._unsettled: set[str] = set()
        # Starts that are probed load the machine until they are ready: as many at once as it has room for.
        self._parallel = STARTS_PER_CORE * (os.cpu_count() or 1)
        self._getting_ready = 0
        self._queued: dict[str, None] = {}
        # The turn of each process among those that may start at once; the order of the file without it.
        self._turns: dict[str, int] = {}

    # -- the cluster

    def remember(self, cluster: Cluster) -> None:
        """Write the definition down, before anything of it happens: a later novad adopts by it.

        Raises `NovadError` where that cannot be done; nothing has changed then.
        """
        try:
            self._records.write_cluster({"boot_id": proc.boot_id(), "cluster": to_json(cluster)})
        except OSError as error:
            raise NovadError(
                f"cannot write the cluster's definition to {error.filename or 'the run directory'}: "
                f"{error.strerror}; nothing was changed",
                "make room there, then try again",
            ) from error

    def load(self, cluster: Cluster) -> None:
        """Take over the definitions of a first cluster; nothing is started."""
        self._define(cluster)
        for spec in cluster.processes:
            self._add(spec)

    def _define(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.effects.configure(cluster)
        self.graph = Graph(cluster.processes)

    def _add(self, spec: ProcessSpec) -> None:
        self.processes[spec.name] = Process(spec, since_s=clock.now_s())
        self.effects.add(spec)

    def replace(self, cluster: Cluster) -> None:
        """New definitions; processes that are defined no longer are forgotten once they have stopped."""
        for spec in cluster.processes:
            if spec.name in self.processes:
                self.apply(spec.name, Redefine(spec))
            else:
                self._add(spec)
        self._define(cluster)
        ordered = dict.fromkeys([*(spec.name for spec in cluster.processes), *self.processes])
        self.processes = {name: self.processes[name] for name in ordered}
        self._unsettled.update(self.processes)

    def _forget_removed(self) -> None:
        defined = {spec.name for spec in self.cluster.processes} if self.cluster else set()
        for name in [name for name in self.processes if name not in defined]:
            if self.processes[name].state not in ALIVE:
                del self.processes[name]
                self.effects.forget(name)
                self._records.remove(name)
                self.history.forget(name)

    # -- events

    def apply(self, name: str, event: Event) -> None:
        """One step of one process, its effects included."""
        old = self.processes.get(name)
        if old is not None:
            self.become(name, step(old, event, clock.now_s(), random.uniform(-1, 1)))

    def become(self, name: str, following: Step) -> None:
        """A process changes, and what that asks for is done."""
        old = self.processes[name]
        new, effects = following
        self.processes[name] = new
        if new is not old:
            self._changed(old, new)
        for effect in effects:
            outcome = self.effects.perform(new, effect)
            if outcome is not None:
                self.apply(name, outcome)

    def stop(self, names: Iterable[str], event: Stop) -> None:
        """Stop several, those that depend before what they depend on."""
        for name in names:
            self._leaving[name] = event
            self._unsettled.add(name)
        self.settle()

    def settle(self) -> None:
        """Carry out what has become possible: stops in order, then starts in order."""
        while self._unsettled:
            names = self._unsettled
            self._unsettled = set()
            self._stop_leaving()
            for name in sorted((name for name in self.processes if name in names), key=self._turn):
                if self._may_start(name):
                    self.apply(name, Released())
            if self.cluster is not None and len(self.processes) > len(self.cluster.processes):
                self._forget_removed()

    def shuffle(self, seed: int) -> None:
        """From now on, what may start at once starts in the random order that `seed` stands for."""
        names = sorted(self.processes)
        random.Random(seed).shuffle(names)
        self._turns = {name: turn for turn, name in enumerate(names)}

    def _turn(self, name: str) -> int:
        return self._turns.get(name, 0)

    def _may_start(self, name: str) -> bool:
        process = self.processes[name]
        if process.state != "waiting" or self.graph.unmet(name, self.processes):
            return False
        if process.spec.ready is None or self._getting_ready < self._parallel:
            return True
        self._queued[name] = None
        return False

    def _stop_leaving(self) -> None:
        """Whoever has no child is stopped at once, so that nothing starts again while it waits for its turn."""
        for name, event in list(self._leaving.items()):
            process = self.processes.get(name)
            if process is None:
                del self._leaving[name]
                continue
            is_held = process.state in ALIVE and not event.kill
            if is_held and self.graph.holds_up(name, self._leaving, self.processes):
                continue
            self.apply(name, event)
            if self.processes[name].state not in ALIVE:
                del self._leaving[name]
            elif process.state in ALIVE and self.processes[name].state == "stopping":
                # It stays among the leaving until it is gone: what it depends on waits for that.
                self._leaving[name] = replace(event, timeout_s=None, kill=False)

    def is_leaving(self, name: str) -> bool:
        return name in self._leaving

    def keep(self, names: Iterable[str]) -> None:
        """A start takes back a stop that has not had its turn."""
        for name in names:
            self._leaving.pop(name, None)

    # -- time

    def next_deadline_s(self) -> float | None:
        """When the nearest timer of any process is due, or None."""
        while self._deadlines:
            due_s, name = self._deadlines[0]
            process = self.processes.get(name)
            if process is not None and next_deadline_s(process) == due_s:
                return due_s
            heapq.heappop(self._deadlines)
        return None

    def tick(self) -> None:
        """Let every process act whose timer is due."""
        now_s = clock.now_s()
        while (due_s := self.next_deadline_s()) is not None and due_s <= now_s:
            self.apply(heapq.heappop(self._deadlines)[1], Tick())

    def postpone(self, by_s: float) -> None:
        """Move every timer, by the time in which novad stood still."""
        for name, process in self.processes.items():
            self.processes[name] = postpone(process, by_s)
            due_s = next_deadline_s(self.processes[name])
            if due_s is not None:
                self._push_deadline(due_s, name)

    def _push_deadline(self, due_s: float, name: str) -> None:
        """What is no deadline any more stays in the heap until it is due, or until there is too much of it."""
        heapq.heappush(self._deadlines, (due_s, name))
        if len(self._deadlines) > 64 + 4 * len(self.processes):
            due = ((next_deadline_s(process), name) for name, process in self.processes.items())
            self._deadlines = [(at_s, name) for at_s, name in due if at_s is not None]
            heapq.heapify(self._deadlines)

    # -- changes

    def _changed(self, old: Process, new: Process) -> None:
        name = new.spec.name
        due_s = next_deadline_s(new)
        if due_s is not None and due_s != next_deadline_s(old):
            self._push_deadline(due_s, name)
        if new.exit is not None and new.exit is not old.exit:
            self._remember_exit(old, new)
        self._count(_is_getting_ready(old), _is_getting_ready(new))
        if new.state != old.state or new.incarnation != old.incarnation:
            self._note(old, new)
            if new.state == "waiting":
                self.effects.warm(new.spec)
            self._unsettled.update((name, *self.graph.dependents(name)), self._leaving)
            if new.state not in ("stopping", "backoff", "failed", "waiting"):
                # What a probe saw last is why it did not get ready, until the next try.
                self.effects.watching.seen.pop(name, None)
        if new.incarnation > max(old.incarnation, 1):
            self._take_along(name)
        if _is_worth_a_record(old, new):
            self._write_record(new)
        self._on_change(old, new)

    def _take_along(self, name: str) -> None:
        """`name` begins anew: those that asked to be restarted with it are."""
        service = self.processes[name].spec.service
        for other, process in list(self.processes.items()):
            if {name, service} & set(process.spec.restart_with) and process.state in ("starting", "ready"):
                self.apply(other, Restart(cause=f"restarted with {name}"))

    def _write_record(self, process: Process) -> None:
        identity = self.effects.identities.get(process.spec.name)
        self._records.write(record(process, identity))

    def _count(self, was: bool, now: bool) -> None:
        """Whoever leaves `starting` makes room for those that were queued."""
        self._getting_ready += now - was
        if was and not now and self._queued:
            self._unsettled.update(self._queued)
            self._queued.clear()

    def _remember_exit(self, old: Process, new: Process) -> None:
        assert new.exit is not None
        output = self.effects.outputs[new.spec.name]
        self.history.add(new.spec.name, PastExit(new.exit, old.pid, clock.wall(), output.position()))
        output.note(report.exit_text(new.exit))
        repeating = self.history.repeating(new.spec.name, new.spec.log.path)
        if repeating is not None:
            output.note(f"the same crash again and again: {repeating}")
            self._journal.write("repeating", name=new.spec.name, crash=repeating)

    def _note(self, old: Process, new: Process) -> None:
        self._journal.write(
            "state", name=new.spec.name, was=old.state, state=new.state, want=new.want, cause=new.cause,
            run=new.incarnation, pid=new.pid, failures=new.failures,
        )  # fmt: skip
        output = self.effects.outputs[new.spec.name]
        match new.state:
            case "ready":
                output.note(f"ready after {new.ready_in_s or 0:.2f} s")
            case "stopping" if old.state != "stopping":
                output.note(f"stopping: {new.fault or new.cause}")
            case "failed":
                output.note(f"failed: {new.cause}; novad restart {new.spec.name} tries again")
            case "backoff":
                due_s = next_deadline_s(new) or new.since_s
                output.note(f"next try in {due_s - new.since_s:.2f} s")


def _is_worth_a_record(old: Process, new: Process) -> bool:
    """A restart after a crash writes once: until the new pid is known, the old record tells the same story."""
    if new.state == "waiting" or (new.state == "starting" and new.pid is None):
        return new.want != old.want
    return (new.state, new.pid, new.want, new.failures) != (old.state, old.pid, old.want, old.failures)


def _is_getting_ready(process: Process) -> bool:
    return process.state == "starting" and process.spec.ready is not None
