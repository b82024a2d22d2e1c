"""A supervised process as a value: what people want of it, what it is, and the timers that are armed.

Nothing here decides; `novad.core.machine` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from novad.core.spec import ProcessSpec

Want = Literal["up", "down", "once"]
State = Literal["waiting", "starting", "ready", "stopping", "stopped", "backoff", "failed", "done"]
Purpose = Literal["", "command", "restart", "fault", "sweep", "seat"]

ALIVE: frozenset[State] = frozenset({"starting", "ready", "stopping"})


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended: `code` or `signal`, or neither when nobody can know. `error` is a failed start.

    `asked`: a command stopped it; `stopped_by_fault`: novad did, because it was no good.
    """

    incarnation: int
    code: int | None = None
    signal: int | None = None
    error: str = ""
    was_ready: bool = False
    asked: bool = False
    stopped_by_fault: bool = False
    lived_s: float = 0.0

    @property
    def is_clean(self) -> bool:
        return self.code == 0


@dataclass(frozen=True, slots=True)
class Foreground:
    """A child on somebody's terminal: on which, and what is wanted of the process afterwards."""

    terminal: str
    want_after: Want


@dataclass(frozen=True, slots=True)
class Process:
    """A supervised thing.

    `timers` maps a name to the moment it is due; `since_s` is when `state` began, `spawned_s` when the child was
    born, `ready_in_s` how long this child took to get ready. `purpose` tells why a child is being stopped,
    `fault` is the sentence for it, `cause` says in words why the process is in its state. `next_spec` takes
    effect when the child that runs by `spec` is gone. `seat` says that the child is a human's, who runs it on a
    terminal; `next_seat` that the next one will be.
    """

    spec: ProcessSpec
    want: Want = "down"
    state: State = "stopped"
    incarnation: int = 0
    pid: int | None = None
    since_s: float = 0.0
    spawned_s: float = 0.0
    timers: tuple[tuple[str, float], ...] = ()
    failures: int = 0
    restarts: int = 0
    purpose: Purpose = ""
    fault: str = ""
    cause: str = ""
    status_text: str = ""
    ready_in_s: float | None = None
    exit: Exit | None = None
    next_spec: ProcessSpec | None = None
    seat: Foreground | None = None
    next_seat: Foreground | None = None
    adopted: bool = False


def describe(ended: Exit) -> str:
    """`exit 1`, `signal 9`, `exit code unknown`, or the reason why it did not start."""
    if ended.error:
        return ended.error
    if ended.code is not None:
        return f"exit {ended.code}"
    if ended.signal is not None:
        return f"signal {ended.signal}"
    return "exit code unknown"


def next_deadline_s(process: Process) -> float | None:
    """When the nearest timer is due, or None."""
    return min((at for _, at in process.timers), default=None)


def timer_s(process: Process, name: str) -> float | None:
    """When the timer `name` is due, or None where it is not armed."""
    return dict(process.timers).get(name)


def arm(process: Process, **timers: float | None) -> Process:
    """Timers by name; None disarms."""
    armed = {**dict(process.timers), **timers}
    return replace(process, timers=tuple((name, at) for name, at in armed.items() if at is not None))


def postpone(process: Process, by_s: float) -> Process:
    """All timers later: in that time nobody could have been heard."""
    return replace(process, timers=tuple((name, at + by_s) for name, at in process.timers))


def enter(process: Process, state: State, now_s: float, cause: str) -> Process:
    """A new state begins without timers."""
    return replace(process, state=state, since_s=now_s, timers=(), cause=cause)
