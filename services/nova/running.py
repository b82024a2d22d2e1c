"""Performs a service's life: keeps the `lifecycle.Life`, feeds it events, carries out its effects.

A `Part` says how to open, drain and close; this module says when. `start`, `stop` and `wait` may be called from
any greenlet, in any order, any number of times; `stop` also while `start` has not returned.
"""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nova import exception, green, inflight, lifecycle
from nova.lifecycle import Effect, Event, Life, State, Wake

LOG = logging.getLogger(__name__)


class Part(Protocol):
    """What a service does at each turn of its life. `open`, `drain` and `close` may take their time."""

    name: str

    def open(self) -> None:
        """Become able to serve; returns when that is confirmed. Raises where it cannot be."""

    def drain(self, timeout_s: float) -> None:
        """Take nothing new; returns when nothing is in flight. `timeout_s` 0 is no limit."""

    def unfinished(self) -> Sequence[Any]:
        """Calls in flight, with the fields of `inflight.Call`."""

    def sever(self) -> None:
        """Drop connections and running work at once; must not wait."""

    def close(self) -> None:
        """Give back whatever is held, also after a start that failed half way."""

    def report(self, state: str) -> None:
        """Tell the world the new state; must not wait."""


@dataclass(frozen=True, slots=True)
class DrainReport:
    """How a stop went. `unfinished` are lines about calls that were cut off; `seconds` is what it took."""

    exit_code: int
    seconds: float
    unfinished: tuple[str, ...] = ()


class Running:
    """One service's life."""

    def __init__(self, part: Part, clock: Callable[[], float] = time.monotonic) -> None:
        self._part = part
        self._clock = clock
        self._life = Life()
        self._events: collections.deque[Event] = collections.deque()
        self._is_stepping = False
        self._settled = green.Event()
        self._finished = green.Event()
        self._opening: green.GreenThread | None = None
        self._unfinished: tuple[str, ...] = ()
        self._stop_timeout_s = 0.0
        self._watchers: list[Callable[[], None]] = []
        self.error: BaseException | None = None

    @property
    def state(self) -> State:
        return self._life.state

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback`, which must not wait, after every change of state."""
        self._watchers.append(callback)

    def start(self) -> None:
        """Begin; returns when the service is ready, or when a stop came first. Raises what opening raised."""
        self.send(lifecycle.Start())
        self._settled.wait()
        if self.error is not None:
            raise self.error

    def stop(self, timeout_s: float) -> DrainReport:
        """End softly; returns when the service has stopped."""
        began_s = self._clock()
        self._stop_timeout_s = timeout_s
        self.send(lifecycle.Stop(timeout_s))
        return DrainReport(self.wait(), self._clock() - began_s, self._unfinished)

    def kill(self) -> None:
        """End now."""
        self.send(lifecycle.Kill())

    def wait(self) -> int:
        """The exit code, when the service has stopped."""
        code: int = self._finished.wait()
        return code

    def send(self, event: Event) -> None:
        """Let `event` happen; one at a time, also when carrying out the last one leads to this one."""
        self._events.append(event)
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            while self._events:
                self._step(self._events.popleft())
        finally:
            self._is_stepping = False

    def _step(self, event: Event) -> None:
        before = self._life
        self._life, effects = lifecycle.step(before, event, self._clock())
        changed = self._life.state is not before.state
        for effect in effects:
            try:
                self._perform(effect)
            except Exception:  # the life goes on, or nobody would ever hear of its end
                LOG.exception("%s: %s failed", self._part.name, effect)
        if changed:
            if not self._settled.ready() and self._life.state is not State.STARTING:
                self._settled.send(None)
            for callback in self._watchers:
                callback()

    def _perform(self, effect: Effect | Wake) -> None:
        match effect:
            case Wake(at_s):
                green.spawn_after(max(0.0, at_s - self._clock()), self.send, lifecycle.Tick())
            case Effect.OPEN:
                LOG.info("%s starts", self._part.name)
                self._opening = green.spawn(self._open)
            case Effect.ABORT_START:
                if self._opening is not None and self._opening is not green.getcurrent():
                    # Later, not now: killing switches, and this step is not over.
                    green.spawn(self._opening.kill)
            case Effect.SAY_READY:
                LOG.info("%s is ready", self._part.name)
                self._part.report("ready")
            case Effect.SAY_STOPPING:
                LOG.info("%s stops: %d in flight", self._part.name, len(self._part.unfinished()))
                self._part.report("draining")
            case Effect.DRAIN:
                green.spawn(self._drain)
            case Effect.REPORT:
                self._report()
            case Effect.SEVER:
                self._part.sever()
            case Effect.CLOSE:
                green.spawn(self._close)
            case Effect.FINISH:
                self._part.report("stopped")
                self._finished.send(self._life.exit_code)

    def _open(self) -> None:
        try:
            self._part.open()
        except green.GreenletExit:
            return
        except BaseException as error:
            self.error = error
            code = getattr(error, "exit_code", None) if isinstance(error, exception.Error) else None
            if isinstance(error, exception.Error):
                LOG.error("%s cannot start: %s", self._part.name, error)
            else:
                LOG.exception("%s cannot start: %s: %s", self._part.name, type(error).__name__, error)
            self.send(lifecycle.StartFailed(code or exception.EXIT_FAILED))
        else:
            self.send(lifecycle.Started())

    def _drain(self) -> None:
        try:
            self._part.drain(self._stop_timeout_s)
        except Exception:
            LOG.exception("%s: draining failed", self._part.name)
        self.send(lifecycle.Idle())

    def _report(self) -> None:
        now_s = time.monotonic()
        self._unfinished = tuple(inflight.describe(call, now_s) for call in self._part.unfinished())
        for line in self._unfinished:
            LOG.warning("%s still waits for %s", self._part.name, line)

    def _close(self) -> None:
        try:
            self._part.close()
        except Exception:
            LOG.exception("%s: closing failed", self._part.name)
        self.send(lifecycle.Closed())
