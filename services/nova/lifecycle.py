"""The life of one service as a pure, total function: step(life, event, now_s) -> (life, effects).

    new -> starting -> ready -> draining -> closing -> stopped

No clock, no log, no exception. `draining` takes nothing new and lets finish what is in flight; `closing` gives
back what is held. Each of the two has a deadline; past it the service is severed: what runs is dropped and the
broker delivers it again elsewhere. `stopped` is final, and whatever comes late changes nothing.

A soft stop asked for again changes nothing; only a hard one does. `decide` is the policy for signals.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum

# cleanup_host and closing connections; a supervisor's patience is longer than drain and this together.
CLOSE_TIMEOUT_S = 1.5
REPORT_EVERY_S = 10.0

CLEAN, FAILED, HARD, TIMED_OUT = 0, 1, 3, 4


class State(Enum):
    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    CLOSING = "closing"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Life:
    """`deadline_s` and `report_s` are times of the caller's clock, or None for never."""

    state: State = State.NEW
    exit_code: int = CLEAN
    deadline_s: float | None = None
    report_s: float | None = None


# Events


@dataclass(frozen=True, slots=True)
class Start:
    """Somebody wants the service."""


@dataclass(frozen=True, slots=True)
class Started:
    """Consumers are confirmed and the row is written."""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """Starting raised; the process should end with `exit_code`."""

    exit_code: int = FAILED


@dataclass(frozen=True, slots=True)
class Stop:
    """End softly within `timeout_s` seconds; 0 waits for ever."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Kill:
    """End now."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing is in flight any more, and nothing new is taken."""


@dataclass(frozen=True, slots=True)
class Closed:
    """All that was held is given back."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A time that `Wake` asked for has come."""


Event = Start | Started | StartFailed | Stop | Kill | Idle | Closed | Tick


# Effects


class Effect(Enum):
    """What is to be done, in the order given. None of them may wait; what takes time reports by an event."""

    OPEN = "open"  # begin to start: ends in Started or StartFailed
    ABORT_START = "abort start"  # end the starting that runs
    SAY_READY = "say ready"
    SAY_STOPPING = "say stopping"
    DRAIN = "drain"  # stop taking, requeue what was not begun, wait: ends in Idle
    REPORT = "report"  # log each call that still runs
    SEVER = "sever"  # drop connections and running work
    CLOSE = "close"  # clean up, close: ends in Closed
    FINISH = "finish"  # tell whoever waits


@dataclass(frozen=True, slots=True)
class Wake:
    """Send a Tick at `at_s`."""

    at_s: float


Effects = tuple[Effect | Wake, ...]


def step(life: Life, event: Event, now_s: float) -> tuple[Life, Effects]:
    """What becomes of `life` with `event`, and what has to be done."""
    match life.state, event:
        case State.STOPPED, _:
            return life, ()
        case State.NEW, Start():
            return Life(State.STARTING), (Effect.OPEN,)
        case State.NEW, Stop():
            return Life(State.STOPPED), (Effect.FINISH,)
        case State.STARTING, Started():
            return Life(State.READY), (Effect.SAY_READY,)
        case State.STARTING, StartFailed(code):
            return _close(code, now_s, Effect.SEVER)
        case State.STARTING, Stop():
            return _close(CLEAN, now_s, Effect.SAY_STOPPING, Effect.ABORT_START, Effect.SEVER)
        case State.READY, Stop(timeout_s):
            return _drain(timeout_s, now_s)
        case State.DRAINING, Idle():
            return _close(life.exit_code, now_s)
        case State.DRAINING, Tick():
            return _draining_tick(life, now_s)
        case State.CLOSING, Closed():
            return Life(State.STOPPED, life.exit_code), (Effect.FINISH,)
        case State.CLOSING, Tick() if life.deadline_s is not None and now_s >= life.deadline_s:
            code = TIMED_OUT if life.exit_code == CLEAN else life.exit_code
            return Life(State.STOPPED, code), (Effect.SEVER, Effect.FINISH)
        case state, Kill():
            before: Effects = (Effect.ABORT_START,) if state is State.STARTING else ()
            return Life(State.STOPPED, HARD), (*before, Effect.SEVER, Effect.FINISH)
    return life, ()


def _drain(timeout_s: float, now_s: float) -> tuple[Life, Effects]:
    report_s = now_s + REPORT_EVERY_S
    deadline_s = now_s + timeout_s if timeout_s > 0 else None
    life = Life(State.DRAINING, deadline_s=deadline_s, report_s=report_s)
    return life, (Effect.SAY_STOPPING, Effect.DRAIN, Wake(_nearest(life)))


def _draining_tick(life: Life, now_s: float) -> tuple[Life, Effects]:
    if life.deadline_s is not None and now_s >= life.deadline_s:
        return _close(TIMED_OUT, now_s, Effect.REPORT, Effect.SEVER)
    if life.report_s is not None and now_s >= life.report_s:
        later = dataclasses.replace(life, report_s=now_s + REPORT_EVERY_S)
        return later, (Effect.REPORT, Wake(_nearest(later)))
    return life, (Wake(_nearest(life)),)


def _close(code: int, now_s: float, *first: Effect) -> tuple[Life, Effects]:
    deadline_s = now_s + CLOSE_TIMEOUT_S
    return Life(State.CLOSING, code, deadline_s), (*first, Effect.CLOSE, Wake(deadline_s))


def _nearest(life: Life) -> float:
    times = [at_s for at_s in (life.deadline_s, life.report_s) if at_s is not None]
    return min(times)


class Action(Enum):
    """What a process does about a signal."""

    STOP = "stop"
    KILL = "kill"
    RELOAD = "reload"
    DUMP = "dump"
    DEBUG = "debug"
    NOTHING = "nothing"


def decide(signal: str, is_stopping: bool, interrupts: int) -> Action:
    """The policy for a signal, named without SIG.

    `is_stopping`: a soft stop was begun. `interrupts`: how many INT came before this one; a person who presses
    Ctrl-C twice means it, a supervisor that repeats TERM does not.
    """
    match signal:
        case "TERM":
            return Action.NOTHING if is_stopping else Action.STOP
        case "INT":
            if interrupts > 0:
                return Action.KILL
            return Action.NOTHING if is_stopping else Action.STOP
        case "QUIT":
            return Action.KILL
        case "HUP":
            return Action.NOTHING if is_stopping else Action.RELOAD
        case "USR1":
            return Action.DUMP
        case "USR2":
            return Action.DEBUG
    return Action.NOTHING


def worst(codes: list[int]) -> int:
    """The exit code of a process from those of its services: a hard stop says more than a timeout, and so on."""
    for code in (HARD, TIMED_OUT):
        if code in codes:
            return code
    return max(codes, default=CLEAN)
