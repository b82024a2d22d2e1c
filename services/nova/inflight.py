"""What a service is doing right now: the calls that a soft stop waits for."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nova import context, green


@dataclass(frozen=True, slots=True)
class Call:
    """`kind` is rpc, periodic, spawned or wsgi; `started_s` is of the monotonic clock."""

    id: str
    method: str
    kind: str
    request_id: str | None
    started_s: float
    redelivered: bool = False


def describe(call: Any, now_s: float) -> str:
    """One line for a log: anything with the fields of `Call`."""
    request = f" request {call.request_id}" if call.request_id else ""
    again = " (redelivered)" if call.redelivered else ""
    return f"{call.kind} {call.method} for {now_s - call.started_s:.1f} s{request}{again}"


class Inflight:
    """Calls of one service that are not the queue's: periodic work, spawned work, requests of the web."""

    def __init__(self) -> None:
        self._calls: dict[str, tuple[Call, Any]] = {}
        self._numbers = itertools.count(1)
        self._changed = green.Event()
        self.done = 0

    @contextlib.contextmanager
    def track(self, method: str, kind: str, request_id: str | None = None) -> Iterator[Call]:
        """The block is one call, run by this greenlet."""
        current = context.current()
        request_id = request_id or (current.request_id if current else None)
        call = Call(f"{kind}-{next(self._numbers)}", method, kind, request_id, time.monotonic())
        self._calls[call.id] = (call, green.getcurrent())
        try:
            yield call
        finally:
            self._remove(call)

    def spawn(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> green.GreenThread:
        """Run `function` in a greenlet that counts from now, in the context of the caller."""
        current = context.current()
        request_id = current.request_id if current else None
        name = getattr(function, "__qualname__", repr(function))
        call = Call(f"spawned-{next(self._numbers)}", name, "spawned", request_id, time.monotonic())

        def run() -> Any:
            try:
                with context.use(current):
                    return function(*args, **kwargs)
            finally:
                self._remove(call)

        thread = green.spawn(run)
        self._calls[call.id] = (call, thread)
        # A greenlet killed before its first switch never runs its `finally`.
        thread.link(lambda _thread: self._remove(call))
        return thread

    def _remove(self, call: Call) -> None:
        if self._calls.pop(call.id, None) is None:
            return
        self.done += 1
        if not self._calls:
            changed, self._changed = self._changed, green.Event()
            changed.send(None)

    def list(self) -> list[Call]:
        """Oldest first."""
        return [call for call, _ in self._calls.values()]

    def __len__(self) -> int:
        return len(self._calls)

    def wait(self) -> None:
        """Until nothing is in flight."""
        while self._calls:
            self._changed.wait()

    def kill(self) -> None:
        """End every greenlet that runs a call; `GreenletExit` is raised in them."""
        current = green.getcurrent()
        for _, greenlet in list(self._calls.values()):
            if greenlet is not current:
                green.kill(greenlet)
