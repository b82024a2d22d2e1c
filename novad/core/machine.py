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
    Followed,
    NameSurvivors,
    Pinged,
    Ready,
    Redefine,
    Released,
    Restart,
    Said,
    Seat,
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
    Vacate,
    Watch,
    WatchdogSet,
    Withdraw,
)  # fmt: skip
from novad.core.process import ALIVE, Exit, Foreground, Process, Purpose, arm, describe, enter, timer_s
from novad.core.stopping import KILL_AGAIN_S, Step, arm_stop, begin_stop, hurry, kill_now

# What a crashed leader leaves behind gets this long before KILL: its successor waits for it.
SWEEP_S = 1.0


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
        case Seat():
            return _seat(process, event, now_s)
        case Vacate():
            return _vacate(process, event, now_s, jitter)
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
        case Followed():
            return replace(process, pid=event.pid), ()


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
    process = replace(process, want="down", next_seat=None)
    match process.state:
        case "starting" | "ready":
            return begin_stop(process, "command", event.cause, event.timeout_s, event.kill, now_s)
        case "stopping":
            process = replace(process, purpose="command", cause=event.cause)
            if event.kill:
                return kill_now(process, now_s)
            return hurry(process, event.timeout_s, now_s), ()
        case "waiting" | "backoff" | "failed":
            return enter(process, "stopped", now_s, event.cause), ()
        case _:
            return process, ()


def _restart(process: Process, event: Restart, now_s: float) -> Step:
    process = replace(process, want="once" if process.want == "once" else "up")
    match process.state:
        case "starting" | "ready":
            process = replace(process, failures=0)
            return begin_stop(process, "restart", event.cause, event.timeout_s, False, now_s)
        case "stopping":
            return replace(process, purpose="restart", cause=event.cause), ()
        case _:
            return _wait(_armed_again(process), now_s, event.cause)


def _seat(process: Process, event: Seat, now_s: float) -> Step:
    """A restart whose new child somebody else spawns; a process that is down comes up for it only."""
    after = process.seat.want_after if process.seat else process.want
    following, effects = _restart(process, Restart(cause=f"fg on {event.terminal}"), now_s)
    return replace(following, want="up", next_seat=Foreground(event.terminal, after)), effects


def _vacate(process: Process, event: Vacate, now_s: float, jitter: float) -> Step:
    if process.next_seat is not None:
        after = process.next_seat.want_after
        process = replace(process, want=after, next_seat=None)
        return _stop(process, Stop(cause=event.cause), now_s) if after == "down" else (process, ())
    if process.seat is None or process.state not in ALIVE:
        return process, ()
    has_died = process.exit is not None and process.exit.incarnation == process.incarnation
    if process.pid is None and not has_died:
        # It was offered and not taken.
        ended = Exit(process.incarnation, error=event.cause, asked=True)
        process, effects = _settle(replace(process, exit=ended), now_s, jitter)
        return process, (Withdraw(process.incarnation), *effects)
    if process.state == "stopping" or process.pid is None:
        return process, ()
    return begin_stop(process, "seat", event.cause, None, False, now_s)


def _redefine(process: Process, event: Redefine) -> Process:
    if process.state in ALIVE:
        return replace(process, next_spec=event.spec)
    return replace(process, spec=event.spec, next_spec=None)


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
        seat=process.next_seat,
        next_seat=None,
    )
    return process, (Spawn(incarnation),)


# --- News of the child --------------------------------------------------------------------------------------


def _spawned(process: Process, event: Spawned, now_s: float) -> Step:
    process = replace(process, pid=event.pid, spawned_s=now_s)
    if process.state == "stopping":
        # A kill that was asked for, or has been tried already, while there was no pid.
        if timer_s(process, "kill") is not None or timer_s(process, "survivors") is not None:
            return kill_now(process, now_s)
        process = arm_stop(process, None, now_s)
        return process, (Terminate(process.incarnation, process.spec.stop.signal),)
    spec = process.spec
    if spec.ready is not None:
        # Who sits in a debugger is never late.
        late_s = None if process.seat else now_s + spec.ready_timeout_s
        process = arm(process, unready=late_s)
    elif not spec.oneshot:
        process = arm(process, alive=now_s + spec.start_s)
    return process, (Watch(process.incarnation),)


def _spawn_failed(process: Process, event: SpawnFailed, now_s: float, jitter: float) -> Step:
    ended = Exit(process.incarnation, error=event.error)
    process = replace(process, exit=ended, pid=None)
    if event.permanent and process.purpose == "":
        return enter(process, "failed", now_s, event.error), ()
    if event.shortage and process.state == "starting" and process.seat is None:
        # Nothing of it has run, so nothing of it has failed: whatever the policy, it is tried until there is room.
        process = replace(process, spec=process.next_spec or process.spec, next_spec=None)
        return arm(enter(process, "backoff", now_s, event.error), retry=now_s + restart.shortage_s(jitter)), ()
    return _settle(process, now_s, jitter)


def _ready(process: Process, now_s: float) -> Step:
    if process.state != "starting":
        return process, ()
    process = replace(enter(process, "ready", now_s, ""), ready_in_s=now_s - process.spawned_s)
    if process.failures:
        reset_s = process.spec.backoff.reset_after_s
        process = arm(process, settled=now_s + reset_s) if reset_s > 0 else replace(process, failures=0)
    is_checked = process.spec.health and process.seat is None
    effects = (CheckHealth(process.incarnation),) if is_checked else ()
    return _pinged(process, now_s), effects


def _pinged(process: Process, now_s: float) -> Process:
    period_s = process.spec.watchdog_s
    if process.state != "ready" or process.seat is not None:
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
    is_asked = process.state == "stopping" and process.purpose in ("command", "restart", "seat")
    ended = Exit(
        event.incarnation,
        event.code,
        event.signal,
        was_ready=process.state == "ready",
        asked=is_asked or process.seat is not None,
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
    return begin_stop(process, "fault", reason, None, False, now_s)


# --- After a death ------------------------------------------------------------------------------------------


def _settle(process: Process, now_s: float, jitter: float) -> Step:
    """The tree is gone: what next follows from want, purpose, exit and policy alone."""
    ended = process.exit
    if process.want == "down":
        return enter(replace(process, purpose=""), "stopped", now_s, process.cause or "stop"), ()
    if process.purpose == "restart":
        return _wait(replace(_armed_again(process), restarts=process.restarts + 1), now_s, process.cause)
    process = replace(process, spec=process.next_spec or process.spec, next_spec=None)
    if process.seat is not None:
        return _unseated(process, process.seat, now_s)
    is_failure = bool(process.fault) or ended is None or not ended.is_clean
    spec = process.spec
    if not is_failure and (process.want == "once" or spec.oneshot or spec.restart != "always"):
        return enter(replace(process, purpose="", failures=0), "done", now_s, "exit 0"), ()
    cause = process.fault or (describe(ended) if ended else "ended")
    if process.want == "once" or spec.restart == "no" or _is_permanent(ended):
        return enter(replace(process, purpose=""), "failed", now_s, cause), ()
    if not is_failure and ended is not None and ended.was_ready:
        # A run that was as it should be; one that ends before it is ready is not, whatever its exit code.
        process = replace(process, failures=0, purpose="", restarts=process.restarts + 1)
        return _wait(process, now_s, cause)
    failures = process.failures + 1
    process = replace(process, failures=failures, purpose="")
    if failures >= spec.give_up_after:
        return enter(process, "failed", now_s, f"{cause}; {failures} failures in a row"), ()
    process = replace(process, restarts=process.restarts + 1)
    delay_s = restart.delay_s(spec.backoff, failures, jitter)
    if delay_s <= 0:
        return _wait(process, now_s, cause)
    return arm(enter(process, "backoff", now_s, cause), retry=now_s + delay_s), ()


def _unseated(process: Process, seat: Foreground, now_s: float) -> Step:
    """The child on the terminal is gone, whichever way: nothing of it counts, and supervision resumes."""
    process = replace(process, want=seat.want_after, seat=None, purpose="")
    cause = f"back from {seat.terminal}"
    ended = process.exit
    if seat.want_after == "down":
        return enter(process, "stopped", now_s, cause), ()
    if process.spec.oneshot and ended is not None and not ended.error:
        return enter(process, "done" if ended.is_clean else "failed", now_s, describe(ended)), ()
    return _wait(process, now_s, cause)


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
            return kill_now(process, now_s)
        case "survivors":
            process, effects = kill_now(process, now_s)
            process = arm(process, survivors=now_s + KILL_AGAIN_S)
            return process, (*effects, NameSurvivors(process.incarnation))
        case _:
            return process, ()
