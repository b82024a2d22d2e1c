"""Runs services in this process: signals, readiness, tiers, the watchdog, the exit code.

Services of a higher tier start earlier and stop later: a draining compute still calls network, so network has the
higher tier. All services of one tier start, and stop, at once. One service that fails or ends ends the process:
restarting is the supervisor's trade.
"""

from __future__ import annotations

import collections
import itertools
import logging
import math
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nova import backdoor, exception, flags, green, inflight, lifecycle, log, metrics, stacks
from nova.lifecycle import Action, State
from nova.loopingcall import LoopingCall
from nova.notify import Notifier
from nova.signals import Signals
from nova.watchdog import Watchdog

LOG = logging.getLogger(__name__)
FLAGS = flags.FLAGS

# What a tier gets at least when those before it have used up the time.
LAST_CHANCE_S = 0.5


@dataclass(frozen=True, slots=True)
class _Entry:
    service: Any
    tier: int


class Launcher:
    """`launch_service` any number of services, then `wait`, which returns the process's exit code."""

    def __init__(self, notifier: Notifier | None = None, name: str = "nova") -> None:
        """`name` is the binary's, for the admin socket."""
        self.name = name
        self._notifier = notifier or Notifier.from_environ()
        self._entries: list[_Entry] = []
        self._events: Any = green.LightQueue()
        self._signals = Signals(lambda name: self._events.put(("signal", name)))
        patience_s = FLAGS.drain_timeout + 1.0 if FLAGS.drain_timeout else math.inf
        self.watchdog = Watchdog(self._signals, self.describe, patience_s)
        self._is_stopping = False
        self._is_killed = False
        self._interrupts = 0
        self._pulse = LoopingCall(self._notifier.watchdog)
        self.metrics = metrics.Registry()
        self.metrics.add(self._samples)

    @property
    def services(self) -> list[Any]:
        return [entry.service for entry in self._entries]

    def launch_service(self, service: Any, tier: int = 0) -> Any:
        """Run `service` too. Tier 0 stops first and starts last."""
        self._entries.append(_Entry(service, tier))
        service.running.watch(lambda: self._events.put(("changed", service.name)))
        if hasattr(service, "watch_lag"):
            service.watch_lag(self.watchdog.hub.lag_s)
        return service

    def describe(self) -> list[str]:
        """One line for each call in flight."""
        now_s = time.monotonic()
        return [
            f"{entry.service.name} ({entry.service.state}): {inflight.describe(call, now_s)}"
            for entry in self._entries
            for call in entry.service.inflight
        ]

    def wait(self) -> int:
        """Start everything, run, and return the exit code when everything has stopped."""
        has_signals = self._signals.install()
        if has_signals:
            self.watchdog.start()
        if self._notifier.watchdog_s:
            self._pulse.start(self._notifier.watchdog_s / 2, stop_on_exception=False)
        admin = self._open_admin()
        green.spawn(self._start_all)
        try:
            while not self._is_over():
                kind, what = self._events.get()
                if kind == "signal":
                    self._on_signal(what)
                else:
                    self._on_change()
            return self._end()
        finally:
            if admin is not None:
                admin.close()
            self._pulse.stop()
            self.watchdog.stop()
            self._signals.restore()

    def _open_admin(self) -> backdoor.Admin | None:
        if not FLAGS.admin_socket or not self._entries:
            return None
        answers = {
            "inflight": lambda: "".join(f"{line}\n" for line in self.describe()),
            "stacks": lambda: stacks.text("stacks", self.describe()),
            "metrics": self.metrics.text,
            "flags": FLAGS.dump,
            "state": lambda: "".join(f"{service.name} {service.state}\n" for service in self.services),
        }
        names = {"launcher": self, "services": self.services}
        admin = backdoor.Admin(backdoor.socket_path(f"{self.name}.{FLAGS.host}"), answers, names)
        admin.start()
        return admin

    def _samples(self) -> Iterable[metrics.Sample]:
        yield "nova_hub_lag_seconds", {}, self.watchdog.hub.lag_s()
        yield "nova_log_dropped_total", {}, log.dropped()
        for service in self.services:
            yield "nova_ready", {"service": service.name}, float(service.running.state is State.READY)
            kinds = collections.Counter(call.kind for call in service.inflight)
            for kind, count in sorted(kinds.items()):
                yield "nova_inflight", {"service": service.name, "kind": kind}, count
            if hasattr(service, "samples"):
                yield from service.samples()

    def stop(self, timeout: float | None = None) -> None:
        """End softly, tier by tier, within `timeout` seconds (`--drain_timeout`) together; returns at once."""
        if self._is_stopping:
            return
        self._is_stopping = True
        timeout_s = FLAGS.drain_timeout if timeout is None else timeout
        self._notifier.stopping("draining")
        if timeout_s:
            self._notifier.extend_timeout(timeout_s + lifecycle.CLOSE_TIMEOUT_S)
        green.spawn(self._stop_all, timeout_s)

    def kill(self) -> None:
        """End now."""
        self._is_stopping = self._is_killed = True
        for service in self.services:
            service.running.kill()

    def restart(self) -> None:
        """HUP: read mutable flags again; nothing in flight notices."""
        self._notifier.reloading()
        try:
            changed, need_restart = FLAGS.reload()
        except exception.FlagError as error:
            LOG.error("nothing was reloaded: %s", error)
        else:
            LOG.info("reloaded; changed: %s", ", ".join(changed) or "nothing")
            if need_restart:
                LOG.warning("these flags change with a restart only: %s", ", ".join(need_restart))
            log.apply_levels()
            for service in self.services:
                service.reset()
        self._notifier.reloaded()

    def _on_signal(self, name: str) -> None:
        action = lifecycle.decide(name, self._is_stopping, self._interrupts)
        self._interrupts += name == "INT"
        match action:
            case Action.STOP:
                LOG.info("%s: stopping%s", name, "; again ends at once" if name == "INT" else "")
                self.stop()
            case Action.KILL:
                LOG.warning("%s: ending at once", name)
                self.kill()
            case Action.RELOAD:
                green.spawn(self.restart)
            case Action.DUMP:
                self.watchdog.dump("USR1")
            case Action.DEBUG:
                log.apply_levels(debug=not log.is_debug())
                LOG.info("debug messages are %s", "on" if log.is_debug() else "off")

    def _on_change(self) -> None:
        states = {service.running.state for service in self.services}
        if states == {State.READY}:
            names = ", ".join(service.name for service in self.services)
            self._notifier.ready(f"{names} ready")
        ended = states & {State.CLOSING, State.STOPPED}
        if ended and not self._is_stopping:
            self.stop()

    def _is_over(self) -> bool:
        return all(service.running.state is State.STOPPED for service in self.services)

    def _tiers(self) -> list[list[Any]]:
        """Services by tier, lowest first."""
        ordered = sorted(self._entries, key=lambda entry: entry.tier)
        return [
            [entry.service for entry in group]
            for _, group in itertools.groupby(ordered, key=lambda entry: entry.tier)
        ]

    def _start_all(self) -> None:
        for tier in reversed(self._tiers()):
            started = [green.spawn(self._start_one, service) for service in tier]
            ready = [thread.wait() for thread in started]
            if not all(ready) or self._is_stopping:
                return

    def _start_one(self, service: Any) -> bool:
        """Whether it is ready. Why not is logged where it happened, and the change of state ends the process."""
        try:
            service.start()
        except Exception:
            return False
        return service.running.state is State.READY

    def _stop_all(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        for tier in self._tiers():
            left_s = max(LAST_CHANCE_S, deadline_s - time.monotonic()) if timeout_s else 0.0
            for thread in [green.spawn(service.stop, left_s) for service in tier]:
                thread.wait()

    def _end(self) -> int:
        code = lifecycle.worst([service.wait() for service in self.services])
        rpc = sys.modules.get("nova.rpc")
        if rpc is not None and not self._is_killed:
            cleanup = green.spawn(rpc.cleanup)
            with green.Timeout(lifecycle.CLOSE_TIMEOUT_S, False):
                cleanup.wait()
        LOG.info("pid %d ends with %d", os.getpid(), code)
        return code
