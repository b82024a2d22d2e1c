"""Calls repeated in a greenlet: LoopingCall, DynamicLoopingCall, BackOffLoopingCall, with Nova's names.

The clock is monotonic. `stop()` interrupts the sleep between two calls and never a call that runs. A call that
raises `LoopingCallDone` ends its loop with that value; any other exception ends it too, unless it was started
with `stop_on_exception=False`, which is what a service does with its own loops: then the exception is logged and
counted, whatever its class, and the next call comes in time.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any

from nova import exception, green

LOG = logging.getLogger(__name__)


class LoopingCallDone(Exception):
    """Raised by the function to end its loop; `wait()` returns `retvalue`."""

    def __init__(self, retvalue: Any = True) -> None:
        super().__init__()
        self.retvalue = retvalue


class LoopingCallTimeOut(exception.Error):
    """A `BackOffLoopingCall` did not come to its end in time."""


class _Loop:
    """The greenlet of one loop. `pause_s(result, started_s)` says how long to sleep after a call."""

    def __init__(self, call: Callable[[], Any], name: str, stop_on_exception: bool = True) -> None:
        self._call = call
        self._name = name
        self._stop_on_exception = stop_on_exception
        self._wake = green.Event()
        self.done = green.Event()
        self.is_running = True
        self.failures = 0

    def run(self, first_s: float, pause_s: Callable[[Any, float], float]) -> None:
        """Body of the greenlet: sends the loop's value, or its exception, to `done`."""
        try:
            value = self._repeat(first_s, pause_s)
        except green.GreenletExit:
            self.done.send(None)
        except BaseException as error:
            if isinstance(error, LoopingCallDone):
                self.done.send(error.retvalue)
                return
            LOG.exception("%s failed; its loop ends", self._name)
            self.done.send_exception(error)
        else:
            self.done.send(value)
        finally:
            self.is_running = False

    def _repeat(self, first_s: float, pause_s: Callable[[Any, float], float]) -> Any:
        self._sleep(first_s)
        while self.is_running:
            started_s = time.monotonic()
            try:
                result = self._call()
            except (LoopingCallDone, green.GreenletExit):
                raise
            except BaseException:
                if self._stop_on_exception:
                    raise
                self.failures += 1
                LOG.exception("%s failed; it is called again", self._name)
                result = None
            if self.is_running:
                self._sleep(pause_s(result, started_s))
        return True

    def _sleep(self, seconds: float) -> None:
        if not self._wake.ready():
            self._wake.wait(timeout=max(0.0, seconds))

    def stop(self) -> None:
        self.is_running = False
        if not self._wake.ready():
            self._wake.send(None)


class _LoopingCall:
    """What the three have in common: start once, stop, wait."""

    def __init__(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._function = f
        self._args = args
        self._kwargs = kwargs
        self._name = getattr(f, "__qualname__", repr(f))
        self._loop: _Loop | None = None

    @property
    def is_running(self) -> bool:
        return self._loop is not None and self._loop.is_running

    @property
    def failures(self) -> int:
        """How many calls raised and were survived."""
        return self._loop.failures if self._loop else 0

    def stop(self) -> None:
        """No further call begins; a sleep ends now."""
        if self._loop is not None:
            self._loop.stop()

    def wait(self) -> Any:
        """The value of the loop when it has ended. Raises what ended it."""
        if self._loop is None:
            raise RuntimeError(f"{self._name} was not started")
        return self._loop.done.wait()

    def _start(
        self, first_s: float, pause_s: Callable[[Any, float], float], stop_on_exception: bool
    ) -> green.Event:
        if self.is_running:
            raise RuntimeError(f"{self._name} runs already")
        self._loop = _Loop(self._once, self._name, stop_on_exception)
        green.spawn(self._loop.run, first_s, pause_s)
        return self._loop.done

    def _once(self) -> Any:
        return self._function(*self._args, **self._kwargs)


class LoopingCall(_LoopingCall):
    """A call at fixed times: a call that lasts longer than the interval skips times, and moves none."""

    def start(
        self,
        interval: float,
        now: bool = True,
        initial_delay: float | None = None,
        jitter: float = 0.0,
        stop_on_exception: bool = True,
    ) -> green.Event:
        """Call every `interval` seconds. `jitter` moves each time by up to that part of the interval."""
        if interval < 0:
            raise ValueError(f"interval must not be negative, got {interval}")
        first_s = initial_delay if initial_delay is not None else 0.0 if now else interval
        due_s = time.monotonic() + first_s

        def pause_s(_result: Any, _started_s: float) -> float:
            nonlocal due_s
            now_s = time.monotonic()
            due_s = next_due_s(due_s, interval, now_s)
            return due_s - now_s + interval * jitter * random.random()

        return self._start(first_s, pause_s, stop_on_exception)


FixedIntervalLoopingCall = LoopingCall


def next_due_s(due_s: float, interval_s: float, now_s: float) -> float:
    """The first time after `now_s` of a clock that struck at `due_s` and strikes every `interval_s`."""
    if interval_s <= 0:
        return now_s
    missed = max(0.0, (now_s - due_s) // interval_s)
    return due_s + (missed + 1) * interval_s


class DynamicLoopingCall(_LoopingCall):
    """A call that returns after how many seconds it wants to be called again; None means the longest."""

    def start(
        self,
        initial_delay: float | None = None,
        periodic_interval_max: float = 60.0,
        stop_on_exception: bool = True,
    ) -> green.Event:
        def pause_s(result: Any, _started_s: float) -> float:
            wanted_s = periodic_interval_max if result is None else float(result)
            return min(wanted_s, periodic_interval_max)

        return self._start(initial_delay or 0.0, pause_s, stop_on_exception)


class BackOffLoopingCall(_LoopingCall):
    """A call repeated more and more slowly until it raises `LoopingCallDone`.

    A true result sets the interval back to the first. `wait()` raises `LoopingCallTimeOut` when the sleeps
    together would be longer than `timeout` seconds.
    """

    def start(
        self,
        initial_delay: float | None = None,
        starting_interval: float = 0.5,
        timeout: float = 300.0,
        max_interval: float = 300.0,
        jitter: float = 0.75,
    ) -> green.Event:
        interval_s, slept_s = starting_interval, 0.0

        def pause_s(result: Any, _started_s: float) -> float:
            nonlocal interval_s, slept_s
            interval_s = starting_interval if result else min(interval_s * 2, max_interval)
            seconds = interval_s * random.uniform(jitter, 1.0)
            slept_s += seconds
            if slept_s > timeout:
                raise LoopingCallTimeOut(f"{self._name} was called again and again for {timeout:g} s")
            return seconds

        return self._start(initial_delay or 0.0, pause_s, True)
