"""Periodic tasks of a manager: what the decorator says, when each is due, and the greenlets that run them.

Each task has its own greenlet, so a slow one delays nobody, the heartbeat least of all. The first run is moved by
a random part of the spacing, or a cluster that starts at once works at once for ever. A task never overlaps
itself unless it says so; a run that is missed is skipped, not made up for. Whatever a run raises is logged,
counted, and the next one comes in time.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from nova import context, flags, green
from nova.inflight import Inflight
from nova.loopingcall import LoopingCall, LoopingCallDone

LOG = logging.getLogger(__name__)
FLAGS = flags.FLAGS

Overlap = Literal["skip", "allow"]
_MARK = "_nova_periodic"


@dataclass(frozen=True, slots=True)
class Task:
    """`spacing_s` 0 means `--periodic_interval`; `jitter` is a part of it; `timeout_s` None is no limit."""

    name: str
    spacing_s: float = 0.0
    run_immediately: bool = False
    jitter: float = 0.05
    overlap: Overlap = "skip"
    timeout_s: float | None = None

    def interval_s(self) -> float:
        return self.spacing_s or float(FLAGS.periodic_interval)

    def first_s(self, chance: float) -> float:
        """Seconds until the first run; `chance` is in [0, 1)."""
        return 0.0 if self.run_immediately else self.interval_s() * (0.1 + 0.9 * chance)


def periodic_task(
    function: Callable[..., Any] | None = None,
    *,
    spacing: float = 0.0,
    run_immediately: bool = False,
    enabled: bool = True,
    name: str | None = None,
    jitter: float = 0.05,
    overlap: Overlap = "skip",
    timeout: float | None = None,
) -> Any:
    """Mark a method `(self, context)` of a manager as a periodic task, run when the manager is in a Service.

    `timeout` raises `green.Timeout` in the run after that many seconds: a run with a timeout must be able to
    stop anywhere.
    """

    def mark(method: Callable[..., Any]) -> Callable[..., Any]:
        task = Task(name or method.__name__, spacing, run_immediately, jitter, overlap, timeout)
        setattr(method, _MARK, task if enabled and spacing >= 0 else None)
        return method

    return mark(function) if function is not None else mark


def tasks_of(manager: Any) -> list[tuple[Task, Callable[..., Any]]]:
    """The tasks of a manager, each with its bound method, by name."""
    found = []
    for name in dir(type(manager)):
        task = getattr(getattr(type(manager), name, None), _MARK, None)
        if isinstance(task, Task):
            found.append((task, getattr(manager, name)))
    return sorted(found, key=lambda pair: pair[0].name)


class Periodic:
    """The periodic tasks of one service."""

    def __init__(self, inflight: Inflight) -> None:
        self._inflight = inflight
        self._loops: list[LoopingCall] = []
        self.failures: dict[str, int] = {}

    def start(self, tasks: list[tuple[Task, Callable[..., Any]]]) -> None:
        for task, method in tasks:
            loop = LoopingCall(self._tick, task, method)
            self._loops.append(loop)
            loop.start(
                task.interval_s(),
                initial_delay=task.first_s(random.random()),
                jitter=task.jitter,
                stop_on_exception=False,
            )

    def stop(self) -> None:
        """No further run begins; what runs is in flight and finishes."""
        for loop in self._loops:
            loop.stop()

    def _tick(self, task: Task, method: Callable[..., Any]) -> None:
        if task.overlap == "allow":
            green.spawn(self.run, task, method)
        else:
            self.run(task, method)

    def run(self, task: Task, method: Callable[..., Any]) -> bool:
        """One run, now; whether it succeeded."""
        asked = context.get_admin_context()
        try:
            with context.use(asked), self._inflight.track(task.name, "periodic"):
                if task.timeout_s is None:
                    method(asked)
                else:
                    with green.Timeout(task.timeout_s):
                        method(asked)
        except (LoopingCallDone, green.GreenletExit):
            raise
        except BaseException:
            self.failures[task.name] = self.failures.get(task.name, 0) + 1
            LOG.exception("the periodic task %s failed; it runs again", task.name)
            return False
        return True
