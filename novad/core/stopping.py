"""How a living child is brought to its end: the stop signal, a look at its stacks, KILL, KILL again. Pure."""

from __future__ import annotations

from dataclasses import replace

from novad.core.messages import Effect, KillTree, Terminate, Unwatch
from novad.core.process import Process, Purpose, arm, enter, timer_s

# Share of the stop timeout after which stacks are collected, while there is still something to look at.
DUMP_AT = 0.8
# After KILL: when survivors are named, so that a stop is answered within a second of its timeout, and how often that
# and the kill are repeated. Only the kernel can hold a process then.
NAME_AFTER_S = 0.5
KILL_AGAIN_S = 1.0

Step = tuple[Process, tuple[Effect, ...]]


def hurry(process: Process, timeout_s: float | None, now_s: float) -> Process:
    """A second stop may shorten the first, never lengthen it."""
    due = timer_s(process, "kill")
    if timeout_s is None or due is None or now_s + timeout_s >= due:
        return process
    return arm(process, kill=now_s + timeout_s, dump=None)


def begin_stop(
    process: Process, purpose: Purpose, cause: str, timeout_s: float | None, kill: bool, now_s: float
) -> Step:
    """The stop signal, or KILL at once; a child whose pid is not known yet gets it later."""
    spawning = process.pid is None
    incarnation = process.incarnation
    process = replace(enter(process, "stopping", now_s, cause), purpose=purpose)
    if spawning:
        # The signal is sent as soon as the pid is known.
        return arm(process, kill=now_s) if kill else process, ()
    if kill:
        process, effects = kill_now(process, now_s)
        return process, (Unwatch(incarnation), *effects)
    process = arm_stop(process, timeout_s, now_s)
    return process, (Unwatch(incarnation), Terminate(incarnation, process.spec.stop.signal))


def arm_stop(process: Process, timeout_s: float | None, now_s: float) -> Process:
    """The limits of a stop that begins now."""
    limit_s = process.spec.stop.timeout_s if timeout_s is None else timeout_s
    return arm(process, dump=now_s + DUMP_AT * limit_s, kill=now_s + limit_s)


def kill_now(process: Process, now_s: float) -> Step:
    """KILL to all of the tree, and again until it is gone."""
    process = arm(process, dump=None, kill=None, survivors=now_s + NAME_AFTER_S)
    return process, (KillTree(process.incarnation),)
