"""Effects on this machine: what `novad.core.machine` decided is done here, and nothing is decided.

Owns what is alive of each process: its output, its child, its probes. An effect that has its outcome at once (a
spawn) returns it as the next event; what happens later comes in through the mailbox.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from novad.core.messages import (
    DumpStacks,
    Effect,
    Event,
    Exited,
    KillTree,
    NameSurvivors,
    Ready,
    Spawn,
    Spawned,
    SpawnFailed,
    Terminate,
    TreeGone,
    Unwatch,
    Watch,
)  # fmt: skip
from novad.core.process import Process
from novad.core.spec import ProcessSpec
from novad.host.child import MARK, Child, Children, Hooks
from novad.host.launch import Command, SpawnError, spawn
from novad.host.output import Output
from novad.host.probe import LineSearch, Probing, Surroundings


@dataclass(frozen=True, slots=True)
class Wiring:
    """What children are given of novad: its sockets, the first part of their mark, their soft limits."""

    control_path: str
    notify_path: str
    mark: str
    soft_limits: dict[int, int]


@dataclass(frozen=True, slots=True)
class Reports:
    """Where news goes that is no event: `put(name, event)`, `lines(name, text)`, `probe(name, text)`,
    `survivors(name, [(pid, command)])`."""

    put: Callable[[str, Event], None]
    lines: Callable[[str, bytes], None]
    probe: Callable[[str, str], None]
    survivors: Callable[[str, list[tuple[int, str]]], None]


class Effects:
    """Performs the effects of all processes of one cluster."""

    def __init__(self, wiring: Wiring, reports: Reports) -> None:
        self._wiring = wiring
        self._reports = reports
        self.env: dict[str, str] = {}
        self.outputs: dict[str, Output] = {}
        self.seen: dict[str, str] = {}
        self.children = Children(Hooks(self._child_exited, self._child_tree_gone))
        self._live: dict[str, Child] = {}
        self._probing: dict[str, Probing] = {}

    def add(self, spec: ProcessSpec) -> None:
        """A process that may be spawned from now on."""
        self.outputs[spec.name] = Output(spec.log, lambda text: self._reports.lines(spec.name, text))

    def forget(self, name: str) -> None:
        """A process that is defined no longer and has no child."""
        self.outputs.pop(name).close()
        self.seen.pop(name, None)

    def child(self, name: str) -> Child | None:
        """The child of `name` that is alive, or whose tree is."""
        return self._live.get(name)

    def perform(self, process: Process, effect: Effect) -> Event | None:
        """Do it; the outcome where there is one already."""
        name = process.spec.name
        child = self._live.get(name)
        match effect:
            case Spawn(incarnation):
                return self._spawn(process.spec, incarnation)
            case Watch(incarnation):
                self._watch(process.spec, incarnation)
            case Unwatch():
                self._unwatch(name)
            case Terminate(_, signal_name) if child:
                self.children.terminate(child, signal_number(signal_name))
            case DumpStacks() if child:
                self._dump_stacks(child)
            case KillTree() if child:
                self._kill_tree(child)
            case NameSurvivors() if child:
                self._name_survivors(child)
        return None

    def _spawn(self, spec: ProcessSpec, incarnation: int) -> Event:
        name = spec.name
        output = self.outputs[name]
        fds: list[int] = []
        try:
            fds.append(output.open_pipe("o"))
            fds.append(output.open_pipe("e"))
            pid = spawn(self._command(spec, incarnation, fds[0], fds[1]))
        except SpawnError as error:
            output.end()
            return SpawnFailed(incarnation, error.message, error.permanent)
        except OSError as error:
            output.end()
            return SpawnFailed(incarnation, f"cannot open its pipes: {error.strerror}", False)
        finally:
            for fd in fds:
                os.close(fd)
        self._live[name] = self.children.add(name, incarnation, pid, self.mark(name, incarnation))
        output.note(f"started, pid {pid}")
        return Spawned(incarnation, pid)

    def _command(self, spec: ProcessSpec, incarnation: int, stdout: int, stderr: int) -> Command:
        return Command(
            spec.argv,
            spec.cwd,
            self.environment(spec, incarnation),
            stdout,
            stderr,
            limits=self._wiring.soft_limits,
        )

    def environment(self, spec: ProcessSpec, incarnation: int) -> dict[str, str]:
        """Everything that a child of `spec` finds in its environment."""
        changed: dict[str, str | None] = {**self.env, **spec.env}
        env = {key: value for key, value in changed.items() if value is not None}
        env["NOVAD_SERVICE"] = spec.service
        env["NOVAD_REPLICA"] = str(spec.replica)
        env["NOVAD_SOCKET"] = self._wiring.control_path
        env["NOTIFY_SOCKET"] = self._wiring.notify_path
        env[MARK] = self.mark(spec.name, incarnation)
        if spec.watchdog_s:
            env["WATCHDOG_USEC"] = str(int(spec.watchdog_s * 1_000_000))
        return env

    def mark(self, name: str, incarnation: int) -> str:
        """What every descendant of a child inherits in its environment: cluster, process, incarnation."""
        return f"{self._wiring.mark}/{name}/{incarnation}"

    def _watch(self, spec: ProcessSpec, incarnation: int) -> None:
        if spec.ready is None:
            return
        name = spec.name
        probing = Probing(
            spec.ready,
            Surroundings(
                spec.cwd,
                self.environment(spec, incarnation),
                self.children.add_helper,
                self.children.remove_helper,
            ),
            lambda: self._reports.put(name, Ready(incarnation)),
            lambda text: self._saw(name, text),
        )
        self._probing[name] = probing
        if spec.ready.log is not None:
            self._search_log(name, spec.ready.log, probing)

    def _search_log(self, name: str, pattern: str, probing: Probing) -> None:
        output, search = self.outputs[name], LineSearch(pattern)

        def feed(data: bytes) -> None:
            if search.feed(data):
                output.on_raw = None
                probing.fulfil("log")

        output.on_raw = feed
        self._saw(name, f"log: no line yet that matches {pattern!r}")

    def _saw(self, name: str, text: str) -> None:
        if self.seen.get(name) != text:
            self.seen[name] = text
            self._reports.probe(name, text)

    def said_ready(self, name: str) -> None:
        """The service itself says that it is ready."""
        probing = self._probing.get(name)
        if probing is not None:
            probing.fulfil("notify")

    def _unwatch(self, name: str) -> None:
        probing = self._probing.pop(name, None)
        if probing is not None:
            probing.close()
        self.outputs[name].on_raw = None

    def _dump_stacks(self, child: Child) -> None:
        self.outputs[child.name].note("still there at 80 % of its stop timeout")

    def _kill_tree(self, child: Child) -> None:
        self.outputs[child.name].note("killing what is left of it")
        self.children.kill_tree(child)

    def _name_survivors(self, child: Child) -> None:
        found = self.children.survivors(child)
        for pid, command in found:
            self.outputs[child.name].note(f"did not die of SIGKILL: pid {pid}, {command}")
        self._reports.survivors(child.name, found)

    # -- news from the host (in the hub)

    def _child_exited(self, child: Child, code: int | None, number: int | None, leftovers: bool) -> None:
        output = self.outputs[child.name]
        if leftovers:
            output.drain()
        else:
            output.end()
            del self._live[child.name]
        self._reports.put(child.name, Exited(child.incarnation, code, number, leftovers))

    def _child_tree_gone(self, child: Child) -> None:
        self.outputs[child.name].end()
        del self._live[child.name]
        self._reports.put(child.name, TreeGone(child.incarnation))


def signal_number(signal_name: str) -> int:
    """15 for `TERM` or `SIGTERM`. Raises `KeyError`."""
    return signal.Signals[f"SIG{signal_name.removeprefix('SIG')}"]
