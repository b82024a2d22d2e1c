"""What a child is given when it is born: command, environment, limits, descriptors."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field

from novad.core.spec import ProcessSpec
from novad.host import stacks
from novad.host.child import MARK
from novad.host.launch import Command

# The names of nova.toml's `limits` are those of setrlimit(2) without RLIMIT_.
_LIMITS = {
    name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_")
}


@dataclass(frozen=True, slots=True)
class Wiring:
    """What children are given of novad: its sockets, the first part of their mark, their soft limits."""

    control_path: str
    notify_path: str
    cluster_mark: str
    soft_limits: dict[int, int]

    @property
    def mark_prefix(self) -> str:
        """What all marks of this cluster begin with."""
        return f"{self.cluster_mark}/"

    def mark(self, name: str, incarnation: int) -> str:
        """What every descendant of a child inherits in its environment: cluster, process, incarnation."""
        return f"{self.mark_prefix}{name}/{incarnation}"

    def environment(self, base: Mapping[str, str], spec: ProcessSpec, incarnation: int) -> dict[str, str]:
        """Everything that a child of `spec` finds in its environment; `base` is what all children start from."""
        changed: dict[str, str | None] = {**base, **spec.env}
        # The mark comes first: of a preloaded service /proc shows only as much as there is room for.
        env = {MARK: ""} | {key: value for key, value in changed.items() if value is not None}
        env["NOVAD_SERVICE"] = spec.service
        env["NOVAD_REPLICA"] = str(spec.replica)
        env["NOVAD_SOCKET"] = self.control_path
        env["NOTIFY_SOCKET"] = self.notify_path
        env[MARK] = self.mark(spec.name, incarnation)
        env["PYTHONPATH"] = stacks.python_path(env.get("PYTHONPATH"))
        if spec.ready is not None and spec.ready.notify_fd is not None:
            env["NOTIFY_FD"] = str(spec.ready.notify_fd)
        if spec.watchdog_s:
            env["WATCHDOG_USEC"] = str(int(spec.watchdog_s * 1_000_000))
        return env

    def limits(self, spec: ProcessSpec) -> dict[int, int]:
        """Soft limits by the numbers of `resource`."""
        return {**self.soft_limits, **{_LIMITS[name]: value for name, value in spec.limits.items()}}


@dataclass(frozen=True, slots=True)
class Birth:
    """A child that is about to be started, and its descriptors: lock, stdout, stderr, and others by number."""

    spec: ProcessSpec
    incarnation: int
    fds: list[int] = field(default_factory=list)
    placed: dict[int, int] = field(default_factory=dict)

    def command(self, wiring: Wiring, base: Mapping[str, str], listen: list[tuple[str, int]]) -> Command:
        """What is to be executed once all descriptors are there."""
        spec = self.spec
        lock, stdout, stderr = self.fds
        return Command(
            spec.argv,
            spec.cwd,
            wiring.environment(base, spec, self.incarnation),
            stdout,
            stderr,
            pass_fds=(lock,),
            limits=wiring.limits(spec),
            nice=spec.nice,
            listen=listen,
            terminal=os.ttyname(stdout) if spec.log.pty else "",
            placed=dict(self.placed),
        )

    def close(self) -> None:
        """The child has them, or there is none."""
        while self.fds:
            os.close(self.fds.pop())
        while self.placed:
            os.close(self.placed.popitem()[1])
