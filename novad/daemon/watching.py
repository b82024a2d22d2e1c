"""What is looked at while a child lives: probes until it is ready, health checks from then on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from novad.core.messages import Event, Ready, Unhealthy
from novad.core.spec import Probe, ProcessSpec
from novad.host.notify import NotifyPipe
from novad.host.output import Output
from novad.host.probe import Checking, LineSearch, Probing, Surroundings


@dataclass(frozen=True, slots=True)
class Reports:
    """Where news goes that is no event: `put(name, event)`, `lines(name, text)`, `probe(name, text)`,
    `survivors(name, [(pid, command, held)])`, `template(text)`; `before_death()` takes in what a process that has
    just died may still have said."""

    put: Callable[[str, Event], None]
    lines: Callable[[str, bytes], None]
    probe: Callable[[str, str], None]
    survivors: Callable[[str, list[tuple[int, str, str]]], None]
    template: Callable[[str], None]
    before_death: Callable[[], None]


class Watching:
    """The probes and checks of all processes. `around(spec, incarnation)` is what their commands run in."""

    def __init__(
        self, reports: Reports, outputs: dict[str, Output], around: Callable[[ProcessSpec, int], Surroundings]
    ) -> None:
        self._reports = reports
        self._outputs = outputs
        self._around = around
        self.seen: dict[str, str] = {}
        self._probing: dict[str, Probing] = {}
        self._checking: dict[str, Checking] = {}
        self._pipes: dict[str, NotifyPipe] = {}

    def watch(self, spec: ProcessSpec, incarnation: int, probe: Probe | None) -> None:
        """Probe a starting child until all kinds hold."""
        if probe is None:
            return
        name = spec.name
        probing = Probing(
            probe,
            self._around(spec, incarnation),
            lambda: self._reports.put(name, Ready(incarnation)),
            lambda text: self._saw(name, text),
        )
        self._probing[name] = probing
        if probe.log is not None:
            self._search_log(name, probe.log, probing)
        if probe.notify_fd is not None:
            self._saw(name, f"notify: no newline yet on descriptor {probe.notify_fd}")
        if probe.notify:
            self._saw(name, "notify: READY=1 has not come yet")

    def _search_log(self, name: str, pattern: str, probing: Probing) -> None:
        output, search = self._outputs[name], LineSearch(pattern)

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

    def cannot_read_log(self, name: str) -> None:
        """Its output goes to somebody's terminal: what it is awaited to print there counts as printed."""
        self._outputs[name].on_raw = None
        probing = self._probing.get(name)
        if probing is not None:
            probing.fulfil("log")

    def open_pipe(self, name: str) -> int:
        """The child's end of a pipe for its newline; the caller closes it after the spawn. Raises `OSError`."""
        self._close_pipe(name)
        pipe = NotifyPipe(lambda: self._probing[name].fulfil("notify_fd") if name in self._probing else None)
        self._pipes[name] = pipe
        return pipe.child_fd

    def _close_pipe(self, name: str) -> None:
        pipe = self._pipes.pop(name, None)
        if pipe is not None:
            pipe.close()

    def check_health(self, spec: ProcessSpec, incarnation: int) -> None:
        """Check a ready child again and again."""
        assert spec.health is not None
        self._checking[spec.name] = Checking(
            spec.health,
            self._around(spec, incarnation),
            lambda reason: self._reports.put(spec.name, Unhealthy(incarnation, reason)),
        )

    def end(self, name: str) -> None:
        """No more probes and checks."""
        self._close_pipe(name)
        for watching in (self._probing.pop(name, None), self._checking.pop(name, None)):
            if watching is not None:
                watching.close()
        self._outputs[name].on_raw = None
