"""One process as a state machine: `step(process, event, now_s) -> (process, effects)`.

`want` is what people asked for, `state` what is; the two never share a field. The function is pure and total: no
clock, no log, no exception; an event that means nothing in a state changes nothing.

Effects are data. The daemon performs them in order and feeds the outcome back as events; nothing is decided
there. A stop, and a restart after a crash, is over when `TreeGone` says that no descendant is left.

The shape is s6's (want, state and one table of transitions) and suture's (everything reaches the loop as a
typed message).
"""

from __future__ import annotations

from dataclasses import replace

from novad.core import restart
from novad.core.messages import (
    CheckHealth,
    DumpStacks,
    Effect,
    Event,
    Exited,
    Extended,
    KillTree,
    NameSurvivors,
    Pinged,
    Ready,
    Redefine,
    Released,
    Restart,
    Said,
    Spawn,
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    Terminate,
    Tick,
    TreeGone,
    Unhealthy,
    Unwatch,
    Watch,
    WatchdogSet,
)  # fmt: skip
from novad.core.process import ALIVE, Exit, Process, Purpose, arm, describe, enter, timer_s

# Share of the stop timeout after which stacks are collected, while there is still something to look at.
DUMP_AT = 0.8
# What a crashed leader leaves behind gets this long before KILL: its successor waits for it.
SWEEP_S = 1.0
# After KILL: how often the kill is repeated and survivors are named. Only the kernel can hold a process then.
KILL_AGAIN_S = 1.0


Step = tuple[Process, tuple[Effect, ...]]

# --- The step -----------------------------------------------------------------------------------------------


def step(process: Process, event: Event, now_s: float, jitter: float = 0.0) -> Step:
    """What becomes of `process`, and what must be done. `jitter` in [-1, 1] spreads retries."""
    match event:
        case Start():
            return _start(process, event, now_s)
        case Stop():
            return _stop(process, event, now_s)
        case Restart():
            return _restart(process, event, now_s)
        case Redefine():
            return _redefine(process, event), ()
        case Released():
            return _release(process, now_s)
        case Tick():
            return _tick(process, now_s)
    if event.incarnation != process.incarnation or process.state not in ALIVE:
        return process, ()
    match event:
        case Spawned():
            return _spawned(process, event, now_s)
        case SpawnFailed():
            return _spawn_failed(process, event, now_s, jitter)
        case Ready():
            return _ready(process, now_s)
        case Exited():
            return _exited(process, event, now_s, jitter)
        case TreeGone():
            return _tree_gone(process, now_s, jitter)
        case Unhealthy():
            return _fault(process, event.reason, now_s)
        case Pinged():
            return _pinged(process, now_s), ()
        case WatchdogSet():
            spec = replace(process.spec, watchdog_s=event.period_s or None)
            return _pinged(replace(process, spec=spec), now_s), ()
        case Extended():
            return _extended(process, now_s + event.by_s), ()
        case Said():
            return replace(process, status_text=event.text), ()


# --- Commands -----------------------------------------------------------------------------------------------


def _start(process: Process, event: Start, now_s: float) -> Step:
    process = replace(process, want="once" if event.once else "up")
    if process.state == "stopping":
        # A fault goes on to its own end; a stop becomes a restart.
        purpose: Purpose = "restart" if process.purpose == "command" else process.purpose
        return replace(process, purpose=purpose), ()
    if process.state in ALIVE or process.state == "waiting":
        return process, ()
    return _wait(_armed_again(process), now_s, event.cause)


def _armed_again(process: Process) -> Process:
    """Old failures are forgotten, and a definition that waited for its turn takes effect."""
    return replace(process, failures=0, spec=process.next_spec or process.spec, next_spec=None)


def _wait(process: Process, now_s: float, cause: str) -> Step:
    return enter(replace(process, purpose="", fault="", status_text=""), "waiting", now_s, cause), ()


def _stop(process: Process, event: Stop, now_s: float) -> Step:
    process = replace(process, want="down")
    match process.state:
        case "starting" | "ready":
            return _begin_stop(process, "command", event.cause, event.timeout_s, event.kill, now_s)
        case "stopping":
            process = replace(process, purpose="command", cause=event.cause)
            if event.kill:
                return _kill(process, now_s)
            return _hurry(process, event.timeout_s, now_s), ()
        case "waiting" | "backoff" | "failed":
            return enter(process, "stopped", now_s, event.cause), ()
        case _:
            return process, ()


def _hurry(process: Process, timeout_s: float | None, now_s: float) -> Process:
    """A second stop may shorten the first, never lengthen it."""
    due = timer_s(process, "kill")
    if timeout_s is None or due is None or now_s + timeout_s >= due:
        return process
    return arm(process, kill=now_s + timeout_s, dump=None)


def _restart(process: Process, event: Restart, now_s: float) -> Step:
    process = replace(process, want="once" if process.want == "once" else "up")
    match process.state:
        case "starting" | "ready":
            process = replace(process, failures=0)
            return _begin_stop(process, "restart", event.cause, event.timeout_s, False, now_s)
        case "stopping":
            return replace(process, purpose="restart", cause=event.cause), ()
        case _:
            return _wait(_armed_again(process), now_s, event.cause)


def _redefine(process: Process, event: Redefine) -> Process:
    if process.state in ALIVE:
        return replace(process, next_spec=event.spec)
    return replace(process, spec=event.spec, next_spec=None)


def _begin_stop(
    process: Process, purpose: Purpose, cause: str, timeout_s: float | None, kill: bool, now_s: float
) -> Step:
    spawning = process.pid is None
    incarnation = process.incarnation
    process = replace(enter(process, "stopping", now_s, cause), purpose=purpose)
    if spawning:
        # The signal is sent as soon as the pid is known.
        return arm(process, kill=now_s) if kill else process, ()
    if kill:
        process, effects = _kill(process, now_s)
        return process, (Unwatch(incarnation), *effects)
    process = _arm_stop(process, timeout_s, now_s)
    return process, (Unwatch(incarnation), Terminate(incarnation, process.spec.stop.signal))


def _arm_stop(process: Process, timeout_s: float | None, now_s: float) -> Process:
    limit_s = process.spec.stop.timeout_s if timeout_s is None else timeout_s
    return arm(process, dump=now_s + DUMP_AT * limit_s, kill=now_s + limit_s)


def _kill(process: Process, now_s: float) -> Step:
    process = arm(process, dump=None, kill=None, survivors=now_s + KILL_AGAIN_S)
    return process, (KillTree(process.incarnation),)


def _release(process: Process, now_s: float) -> Step:
    if process.state != "waiting":
        return process, ()
    incarnation = process.incarnation + 1
    process = enter(process, "starting", now_s, process.cause)
    process = replace(
        process,
        incarnation=incarnation,
        pid=None,
        spawned_s=now_s,
        ready_in_s=None,
        purpose="",
        fault="",
        adopted=False,
    )
    return process, (Spawn(incarnation),)


# --- News of the child --------------------------------------------------------------------------------------


def _spawned(process: Process, event: Spawned, now_s: float) -> Step:
    process = replace(process, pid=event.pid, spawned_s=now_s)
    if process.state == "stopping":
        # A kill that was asked for, or has been tried already, while there was no pid.
        if timer_s(process, "kill") is not None or timer_s(process, "survivors") is not None:
            return _kill(process, now_s)
        process = _arm_stop(process, None, now_s)
        return process, (Terminate(process.incarnation, process.spec.stop.signal),)
    spec = process.spec
    if spec.ready is not None:
        process = arm(process, unready=now_s + spec.ready_timeout_s)
    elif not spec.oneshot:
        process = arm(process, alive=now_s + spec.start_s)
    return process, (Watch(process.incarnation),)


def _spawn_failed(process: Process, event: SpawnFailed, now_s: float, jitter: float) -> Step:
    ended = Exit(process.incarnation, error=event.error)
    process = replace(process, exit=ended, pid=None)
    if event.permanent and process.purpose == "":
        return enter(process, "failed", now_s, event.error), ()
    return _settle(process, now_s, jitter)


def _ready(process: Process, now_s: float) -> Step:
    if process.state != "starting":
        return process, ()
    process = replace(enter(process, "ready", now_s, ""), ready_in_s=now_s - process.spawned_s)
    if process.failures:
        reset_s = process.spec.backoff.reset_after_s
        process = arm(process, settled=now_s + reset_s) if reset_s > 0 else replace(process, failures=0)
    effects = (CheckHealth(process.incarnation),) if process.spec.health else ()
    return _pinged(process, now_s), effects


def _pinged(process: Process, now_s: float) -> Process:
    period_s = process.spec.watchdog_s
    if process.state != "ready":
        return process
    return arm(process, watchdog=now_s + period_s if period_s else None)


def _extended(process: Process, until_s: float) -> Process:
    """EXTEND_TIMEOUT_USEC moves the limit of the current phase, and only outwards."""
    for name in ("unready", "kill"):
        due = timer_s(process, name)
        if due is not None and due < until_s:
            process = arm(process, **{name: until_s})
    return process


def _exited(process: Process, event: Exited, now_s: float, jitter: float) -> Step:
    asked = process.state == "stopping" and process.purpose in ("command", "restart")
    ended = Exit(
        event.incarnation,
        event.code,
        event.signal,
        was_ready=process.state == "ready",
        asked=asked,
        stopped_by_fault=process.state == "stopping" and process.purpose == "fault",
        lived_s=now_s - process.spawned_s,
    )
    was_stopping = process.state == "stopping"
    process = replace(process, exit=ended, pid=None)
    unwatch = () if was_stopping else (Unwatch(event.incarnation),)
    if not event.leftovers:
        process, effects = _settle(process, now_s, jitter)
        return process, (*unwatch, *effects)
    # What outlives its leader is told to go, wherever it hides; a group's signal did not reach it.
    terminate = Terminate(event.incarnation, process.spec.stop.signal)
    if was_stopping:
        return process, (terminate,)
    process = replace(enter(process, "stopping", now_s, "its leader died"), purpose="sweep")
    return arm(process, kill=now_s + SWEEP_S), (*unwatch, terminate)


def _tree_gone(process: Process, now_s: float, jitter: float) -> Step:
    if process.state != "stopping" or process.pid is not None:
        return process, ()
    return _settle(process, now_s, jitter)


def _fault(process: Process, reason: str, now_s: float) -> Step:
    """The child lives but is no good: it is stopped, and that counts as a failure."""
    if process.state == "stopping" or process.pid is None:
        return process, ()
    process = replace(process, fault=reason)
    return _begin_stop(process, "fault", reason, None, False, now_s)


# --- After a death ------------------------------------------------------------------------------------------


def _settle(process: Process, now_s: float, jitter: float) -> Step:
    """The tree is gone: what next follows from want, purpose, exit and policy alone."""
    ended = process.exit
    if process.want == "down":
        return enter(replace(process, purpose=""), "stopped", now_s, process.cause or "stop"), ()
    if process.purpose == "restart":
        return _wait(replace(_armed_again(process), restarts=process.restarts + 1), now_s, process.cause)
    process = replace(process, spec=process.next_spec or process.spec, next_spec=None)
    is_failure = bool(process.fault) or ended is None or not ended.is_clean
    spec = process.spec
    if not is_failure and (process.want == "once" or spec.oneshot or spec.restart != "always"):
        return enter(replace(process, purpose="", failures=0), "done", now_s, "exit 0"), ()
    cause = process.fault or (describe(ended) if ended else "ended")
    if process.want == "once" or spec.restart == "no" or _is_permanent(ended):
        return enter(replace(process, purpose=""), "failed", now_s, cause), ()
    failures = process.failures + 1
    process = replace(process, failures=failures, purpose="")
    if failures >= spec.give_up_after:
        return enter(process, "failed", now_s, f"{cause}; {failures} failures in a row"), ()
    process = replace(process, restarts=process.restarts + 1)
    delay_s = restart.delay_s(spec.backoff, failures, jitter)
    if delay_s <= 0:
        return _wait(process, now_s, cause)
    return arm(enter(process, "backoff", now_s, cause), retry=now_s + delay_s), ()


def _is_permanent(ended: Exit | None) -> bool:
    return ended is not None and ended.code == restart.EXIT_PERMANENT


# --- Time ---------------------------------------------------------------------------------------------------


def _tick(process: Process, now_s: float) -> Step:
    """Acts on the timers that are due, earliest first. Each is disarmed before it acts."""
    effects: tuple[Effect, ...] = ()
    while True:
        due = min(((at, name) for name, at in process.timers if at <= now_s), default=None)
        if due is None:
            return process, effects
        process, more = _timer(arm(process, **{due[1]: None}), due[1], now_s)
        effects += more


def _timer(process: Process, name: str, now_s: float) -> Step:
    match name:
        case "alive":
            return _ready(process, now_s)
        case "unready":
            return _fault(process, f"not ready within {process.spec.ready_timeout_s:g} s", now_s)
        case "watchdog":
            return _fault(process, f"no watchdog ping for {process.spec.watchdog_s:g} s", now_s)
        case "settled":
            return replace(process, failures=0), ()
        case "retry":
            return _wait(process, now_s, process.cause)
        case "dump":
            return process, (DumpStacks(process.incarnation),)
        case "kill":
            return _kill(process, now_s)
        case "survivors":
            process, effects = _kill(process, now_s)
            return process, (*effects, NameSurvivors(process.incarnation))
        case _:
            return process, ()
