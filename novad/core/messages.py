"""What is said to a process (events) and what it asks for (effects): plain values.

Events about a child carry its incarnation, so that the late news of a dead child cannot touch its successor.
"""

from __future__ import annotations

from dataclasses import dataclass

from novad.core.spec import Probe, ProcessSpec

# --- Events -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Somebody wants it up. `forget` re-arms the count of failures, as a human's start does."""

    once: bool = False
    cause: str = "start"


@dataclass(frozen=True, slots=True)
class Stop:
    """Somebody wants it down. `timeout_s` None is the timeout of the spec."""

    timeout_s: float | None = None
    kill: bool = False
    cause: str = "stop"


@dataclass(frozen=True, slots=True)
class Restart:
    """A new child in place of the old, or a first one."""

    timeout_s: float | None = None
    cause: str = "restart"


@dataclass(frozen=True, slots=True)
class Seat:
    """The next child runs on somebody's terminal, in place of the one that runs now."""

    terminal: str


@dataclass(frozen=True, slots=True)
class Vacate:
    """Whoever had, or was waiting for, the process on a terminal is gone."""

    cause: str


@dataclass(frozen=True, slots=True)
class Redefine:
    """Another definition: at once where no child is alive, otherwise for the next child."""

    spec: ProcessSpec


@dataclass(frozen=True, slots=True)
class Released:
    """Everything in `after` holds: a waiting process may start."""


@dataclass(frozen=True, slots=True)
class Spawned:
    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """`permanent` where trying again cannot help (no such file, not executable); `shortage` where the machine has no
    room for it now (processes, memory, descriptors), which is not the fault of what was to be started."""

    incarnation: int
    error: str
    permanent: bool
    shortage: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    incarnation: int


@dataclass(frozen=True, slots=True)
class Pinged:
    """The watchdog was fed."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class WatchdogSet:
    """The service chose another watchdog period; 0 switches it off."""

    incarnation: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Extended:
    """The service asks for `by_s` from now on for what it is doing."""

    incarnation: int
    by_s: float


@dataclass(frozen=True, slots=True)
class Said:
    """A line for humans from the service itself."""

    incarnation: int
    text: str


@dataclass(frozen=True, slots=True)
class Followed:
    """The service named another of its processes as the one that it is (MAINPID)."""

    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True)
class Unhealthy:
    incarnation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The leader is dead. `leftovers`: other processes of its tree are alive."""

    incarnation: int
    code: int | None
    signal: int | None
    leftovers: bool = False


@dataclass(frozen=True, slots=True)
class TreeGone:
    incarnation: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; timers that are due act."""


Event = (
    Start | Stop | Restart | Seat | Vacate | Redefine | Released | Spawned | SpawnFailed | Ready | Pinged | WatchdogSet
    | Extended | Said | Followed | Unhealthy | Exited | TreeGone | Tick
)  # fmt: skip


# --- Effects ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spawn:
    incarnation: int


@dataclass(frozen=True, slots=True)
class Withdraw:
    """What was offered for a child on a terminal is not taken."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Begin the probes for this child: those of `spec.ready`, or `probe` where only some are left."""

    incarnation: int
    probe: Probe | None = None


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Begin the repeated checks of `spec.health`: the child is ready."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class Unwatch:
    """No more probes and checks."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """The stop signal, then CONT, to the group; what descends from the child is noted first."""

    incarnation: int
    signal: str


@dataclass(frozen=True, slots=True)
class DumpStacks:
    incarnation: int


@dataclass(frozen=True, slots=True)
class KillTree:
    incarnation: int


@dataclass(frozen=True, slots=True)
class NameSurvivors:
    """KILL did not help within its time: say who is still there."""

    incarnation: int


Effect = Spawn | Withdraw | Watch | CheckHealth | Unwatch | Terminate | DumpStacks | KillTree | NameSurvivors
