"""Effects on this machine: what `novad.core.machine` decided is done here, and nothing is decided.

Owns what is alive of each process: its output, its child, its probes. An effect that has its outcome at once (a
spawn) returns it as the next event; what happens later comes in through the mailbox.
"""

from __future__ import annotations

import os
import signal
import stat
from dataclasses import dataclass
from functools import partial

from novad.core.messages import (
    CheckHealth,
    DumpStacks,
    Effect,
    Event,
    Exited,
    Followed,
    KillTree,
    NameSurvivors,
    Spawn,
    Spawned,
    SpawnFailed,
    Terminate,
    TreeGone,
    Unwatch,
    Watch,
    Withdraw,
)  # fmt: skip
from novad.core.process import Process
from novad.core.record import Identity
from novad.core.spec import Cluster, ProcessSpec
from novad.daemon.birth import Birth, Wiring
from novad.daemon.upgrade import Handover
from novad.daemon.watching import Reports, Watching
from novad.host import proc
from novad.host.child import Child, Hooks
from novad.host.children import Children
from novad.host.disk import Disk
from novad.host.launch import SHORTAGE, Command, SpawnError, spawn
from novad.host.output import Output
from novad.host.ports import Busy, Ports
from novad.host.probe import Surroundings
from novad.host.record import Records, identify
from novad.host.stops import Stops
from novad.host.template import House, Order, Templates


@dataclass(frozen=True, slots=True)
class Offer:
    """A child that somebody else will spawn: the lock it must inherit is held for it."""

    incarnation: int
    lock: int


class Effects:
    """Performs the effects of all processes of one cluster."""

    def __init__(self, wiring: Wiring, records: Records, reports: Reports, disk: Disk) -> None:
        self.wiring = wiring
        self._disk = disk
        self._records = records
        self._reports = reports
        self.env: dict[str, str] = {}
        self.outputs: dict[str, Output] = {}
        self.stops = Stops()
        self.children = Children(Hooks(self._child_exited, self._child_tree_gone, reports.before_death))
        self.templates = Templates(House(self.children.add_helper, self.children.remove_helper, reports.template))
        self.ports = Ports()
        self.identities: dict[str, Identity] = {}
        self._specs: dict[str, ProcessSpec] = {}
        self._live: dict[str, Child] = {}
        self.offers: dict[str, Offer] = {}
        self.watching = Watching(
            reports,
            self.outputs,
            lambda spec, n: self.surroundings(spec.cwd, self.wiring.environment(self.env, spec, n)),
        )

    def configure(self, cluster: Cluster) -> None:
        """What the children of `cluster` have in common."""
        self.env = cluster.env
        self.templates.configure(cluster.env, cluster.preload)

    def warm(self, spec: ProcessSpec) -> None:
        """`spec` will be spawned soon: its template can begin to import."""
        if spec.python is not None:
            self.templates.warm(spec.argv[0], spec.cwd, self.wiring.environment(self.env, spec, 0))

    def add(self, spec: ProcessSpec) -> None:
        """A process that may be spawned from now on."""
        self.ports.hold(spec)
        self._specs[spec.name] = spec
        self.outputs[spec.name] = Output(spec.log, self._disk, lambda text: self._reports.lines(spec.name, text))

    def forget(self, name: str) -> None:
        """A process that is defined no longer and has no child."""
        self.ports.forget(name)
        self._specs.pop(name, None)
        self.outputs.pop(name).close()
        self.watching.seen.pop(name, None)

    def child(self, name: str) -> Child | None:
        """The child of `name` that is alive, or whose tree is."""
        return self._live.get(name)

    def surroundings(self, cwd: str = "/", env: dict[str, str] | None = None) -> Surroundings:
        """What a command of our own runs in; without `env` in our own environment."""
        env = dict(os.environ) if env is None else env
        return Surroundings(self.children.add_helper, self.children.remove_helper, cwd, env)

    def perform(self, process: Process, effect: Effect) -> Event | None:
        """Do it; the outcome where there is one already."""
        name = process.spec.name
        child = self._live.get(name)
        match effect:
            case Spawn(incarnation) if process.seat is None:
                return self._spawn(process.spec, incarnation)
            case Spawn(incarnation):
                return self._offer(process.spec, incarnation)
            case Withdraw():
                self._withdraw(process.spec)
            case Watch(incarnation, probe):
                self.watching.watch(process.spec, incarnation, probe or process.spec.ready)
            case CheckHealth(incarnation):
                self.watching.check_health(process.spec, incarnation)
            case Unwatch():
                self.watching.end(name)
            case Terminate(_, signal_name) if child:
                self.children.terminate(child, signal_number(signal_name))
            case DumpStacks() if child:
                self._dump_stacks(child)
            case KillTree() if child:
                self._kill_tree(child)
            case NameSurvivors() if child:
                self._name_survivors(child)
        return None

    def _spawn(self, spec: ProcessSpec, incarnation: int) -> Event | None:
        """The outcome, or None where a template is asked to fork it: then the outcome comes later."""
        birth = Birth(spec, incarnation)
        try:
            failure = self._prepare(birth)
        except OSError as error:
            self.outputs[spec.name].end()
            self.ports.hold(spec)
            said = f"cannot prepare its start: {error.strerror}: {error.filename or 'descriptors'}"
            failure = SpawnFailed(incarnation, said, False, error.errno in SHORTAGE)
        if failure is not None:
            birth.close()
            return failure
        command = birth.command(self.wiring, self.env, self.ports.passed(spec))
        if spec.python is not None and not spec.log.pty and not birth.placed:
            order = Order(spec.name, spec.python, command, partial(self._forked, birth, command))
            if self.templates.fork(order):
                return None
        return self._execute(birth, command)

    def _prepare(self, birth: Birth) -> SpawnFailed | None:
        """Lock, ports and pipes of a child. Raises `OSError`."""
        spec = birth.spec
        lock = self._records.lock(spec.name)
        if lock is None:
            return SpawnFailed(birth.incarnation, self._taken(spec.name), False)
        birth.fds.append(lock)
        self._specs[spec.name] = spec
        try:
            self.ports.release(spec)
        except Busy as busy:
            return SpawnFailed(birth.incarnation, str(busy), False)
        output = self.outputs[spec.name]
        if spec.log.pty:
            birth.fds.append(output.open_terminal())
            birth.fds.append(os.dup(birth.fds[-1]))
        else:
            birth.fds.append(output.open_pipe("o"))
            birth.fds.append(output.open_pipe("e"))
        if spec.ready is not None and spec.ready.notify_fd is not None:
            birth.placed[spec.ready.notify_fd] = self.watching.open_pipe(spec.name)
        return None

    def _execute(self, birth: Birth, command: Command) -> Event:
        try:
            pid = spawn(command)
            return self._born(birth, pid, f"started, pid {pid}")
        except SpawnError as error:
            self.outputs[birth.spec.name].end()
            self.ports.hold(birth.spec)
            return SpawnFailed(birth.incarnation, error.message, error.permanent, error.shortage)
        finally:
            birth.close()

    def _forked(self, birth: Birth, command: Command, pid: int | None) -> None:
        """What has become of an order. Raises `ProcessLookupError` for a pid that is gone already."""
        if pid is None:
            event = self._execute(birth, command)
        else:
            event = self._born(birth, pid, f"started, pid {pid}, preloaded")
            birth.close()
        self._reports.put(birth.spec.name, event)

    def _born(self, birth: Birth, pid: int, said: str) -> Event:
        name = birth.spec.name
        child = self.children.add(name, birth.incarnation, pid, self.wiring.mark(name, birth.incarnation))
        self._live[name] = child
        self._identify(child, tuple(os.fstat(fd).st_ino for fd in birth.fds[1:]))
        self.outputs[name].note(said)
        return Spawned(birth.incarnation, pid)

    def _offer(self, spec: ProcessSpec, incarnation: int) -> Event | None:
        """Free what a child on a terminal needs, for whoever asked to take it there."""
        try:
            lock = self._records.lock(spec.name)
            if lock is None:
                return SpawnFailed(incarnation, self._taken(spec.name), False)
            self._specs[spec.name] = spec
            self.offers[spec.name] = Offer(incarnation, lock)
            self.ports.release(spec)
        except (Busy, OSError) as error:
            self._withdraw(spec)
            return SpawnFailed(incarnation, str(error), False)
        return None

    def _withdraw(self, spec: ProcessSpec) -> None:
        offer = self.offers.pop(spec.name, None)
        if offer is not None:
            os.close(offer.lock)
            self.ports.hold(spec)

    def take(self, name: str, terminal: str, pid: int, with_log: bool) -> Spawned:
        """The offer is taken: `pid`, somebody else's child, is the process now. Raises `OSError`."""
        offer = self.offers[name]
        child = self.children.adopt(name, offer.incarnation, pid, self.wiring.mark(name, offer.incarnation))
        del self.offers[name]
        os.close(offer.lock)
        self._live[name] = child
        self._identify(child, ())
        self.outputs[name].note(
            f"started on {terminal}, pid {pid}{'' if with_log else '; its output goes there'}"
        )
        return Spawned(offer.incarnation, pid)

    def is_paused(self, name: str, pid: int) -> bool:
        """Whether a signal has stopped `pid`, which the process `name` is."""
        child = self._live.get(name)
        return self.stops.is_paused(pid, child is not None and child.pid == pid and not child.is_adopted)

    def follow(self, child: Child, pid: int) -> Event | None:
        """`pid`, of the tree of `child`, is the process from now on; None, with a remark, where that cannot be."""
        reason = self.children.follow(child, pid)
        if reason:
            self.outputs[child.name].note(f"MAINPID={pid} ignored: {reason}")
            return None
        _, fd, _ = child.main or (child.pid, child.pidfd, None)
        pipes = self.identities[child.name].pipes if child.name in self.identities else ()
        identity = identify(pid, fd, pipes)
        if identity is not None:
            self.identities[child.name] = identity
        return Followed(child.incarnation, pid)

    def _taken(self, name: str) -> str:
        holders = ", ".join(f"pid {pid} ({proc.command(pid)})" for pid in self._records.holders(name))
        return f"an earlier instance is still alive: {holders or 'unknown'}"

    def _identify(self, child: Child, pipes: tuple[int, ...]) -> None:
        identity = identify(child.pid, child.pidfd, pipes)
        if identity is not None:
            self.identities[child.name] = identity

    def adopt(self, name: str, incarnation: int, identity: Identity, handover: Handover) -> Child:
        """Take over a child of an earlier novad, and its output with the lines that have begun.

        Raises `ProcessLookupError`.
        """
        mark = self.wiring.mark(name, incarnation)
        child = self.children.adopt(name, incarnation, identity.pid, mark)
        self._live[name] = child
        self.stops.suspect(identity.pid)
        self._identify(child, identity.pipes)
        output, partials = self.outputs[name], handover.partials.get(name, {})
        if name in handover.terminals:
            output.attach_terminal(handover.terminals[name], partials.get("o", "").encode("latin-1"))
        for letter, number in (("o", 1), ("e", 2)):
            fd = _open_pipe(identity, number)
            if fd is not None:
                output.attach(letter, fd, partials.get(letter, "").encode("latin-1"))
        if child.is_adopted:
            output.note(f"adopted, pid {identity.pid}")
        return child

    def adopt_leftovers(self, name: str, incarnation: int, pids: list[int]) -> bool:
        """What a child that died unseen left behind becomes ours to end; False when it is gone by now."""
        mark = self.wiring.mark(name, incarnation)
        child = self.children.adopt_leftovers(name, incarnation, pids, mark)
        if child is not None:
            self._live[name] = child
        return child is not None

    def _dump_stacks(self, child: Child) -> None:
        shown = self.children.show_stacks(child)
        said = f"; the stacks of {', '.join(map(str, shown))} follow" if shown else ""
        self.outputs[child.name].note(f"still there at 80 % of its stop timeout{said}")

    def _kill_tree(self, child: Child) -> None:
        self.outputs[child.name].note("killing what is left of it")
        self.children.kill_tree(child)

    def _name_survivors(self, child: Child) -> None:
        found = self.children.survivors(child)
        for pid, command, held in found:
            why = f": {held}" if held else ""
            self.outputs[child.name].note(f"did not die of SIGKILL: pid {pid}, {command}{why}")
        self._reports.survivors(child.name, found)

    # -- news from the host (in the hub)

    def _child_exited(self, child: Child, code: int | None, number: int | None, leftovers: bool) -> None:
        output = self.outputs[child.name]
        if leftovers:
            output.drain()
        else:
            self._ended(child.name)
        self._reports.put(child.name, Exited(child.incarnation, code, number, leftovers))

    def _ended(self, name: str) -> None:
        self.outputs[name].end()
        self.ports.hold(self._specs[name])
        del self._live[name]

    def _child_tree_gone(self, child: Child) -> None:
        self._ended(child.name)
        self._reports.put(child.name, TreeGone(child.incarnation))


def _open_pipe(identity: Identity, number: int) -> int | None:
    """Our end of the pipe that is descriptor `number` of an adopted child, if it is still the one we made."""
    try:
        fd = os.open(f"/proc/{identity.pid}/fd/{number}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    found = os.fstat(fd)
    if stat.S_ISFIFO(found.st_mode) and found.st_ino in identity.pipes:
        return fd
    os.close(fd)
    return None


def signal_number(signal_name: str) -> int:
    """15 for `TERM` or `SIGTERM`. Raises `KeyError`."""
    return signal.Signals[f"SIG{signal_name.removeprefix('SIG')}"]
