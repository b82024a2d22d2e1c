"""Numbers about this process in Prometheus's text format (exposition format 0.0.4).

A `Registry` belongs to a launcher: services add counters as they work, and gauges are read when somebody asks.
Labels are names of methods and tasks that exist, never what a caller sends, so their number is bounded.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nova import green

Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]


@dataclass(slots=True)
class Calls:
    """What one service has done, by method: calls that ended, how, and how long they took together."""

    ended: dict[tuple[str, str], int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def note(self, method: str, outcome: str, seconds: float) -> None:
        """One call of `method` ended as `outcome` (ok, error) after `seconds`."""
        self.ended[method, outcome] = self.ended.get((method, outcome), 0) + 1
        self.seconds[method] = self.seconds.get(method, 0.0) + seconds

    @property
    def total(self) -> int:
        return sum(self.ended.values())

    def samples(self, service: str) -> Iterable[Sample]:
        for (method, outcome), count in sorted(self.ended.items()):
            yield "nova_calls_total", {"service": service, "method": method, "outcome": outcome}, count
        for method, seconds in sorted(self.seconds.items()):
            yield "nova_call_seconds_total", {"service": service, "method": method}, seconds


class Registry:
    """Sources of samples, asked in order; what a sample means is in `HELP`."""

    def __init__(self) -> None:
        self._sources: list[Callable[[], Iterable[Sample]]] = [process_samples]

    def add(self, source: Callable[[], Iterable[Sample]]) -> None:
        self._sources.append(source)

    def text(self) -> str:
        """All samples, families together, each with its help and type."""
        families: dict[str, list[str]] = {}
        for source in self._sources:
            for name, labels, value in source():
                families.setdefault(name, []).append(f"{name}{_labels(labels)} {value:.12g}")
        lines = []
        for name, samples in families.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {name} {HELP.get(name, name)}", f"# TYPE {name} {kind}", *samples]
        return "\n".join(lines) + "\n"


HELP = {
    "nova_calls_total": "Calls that ended, by method and outcome.",
    "nova_call_seconds_total": "Seconds that those calls took together.",
    "nova_inflight": "Calls that have begun and not ended, by kind.",
    "nova_ready": "1 while the service is ready.",
    "nova_hub_lag_seconds": "The longest turn of the hub since the last heartbeat or question.",
    "nova_greenlets": "Greenlets that wait for something.",
    "nova_log_dropped_total": "Log lines dropped because nobody read them.",
    "nova_shed_total": "Clients answered 503 because descriptors ran out.",
    "nova_periodic_failures_total": "Runs of periodic tasks that raised.",
    "process_start_time_seconds": "When the process began, in seconds since 1970.",
    "process_resident_memory_bytes": "Resident memory.",
    "process_open_fds": "Open file descriptors.",
    "process_cpu_seconds_total": "User and system time.",
}

_STARTED_S = time.time()


def process_samples() -> Iterable[Sample]:
    """About the process itself; what /proc does not say is left out."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield "process_start_time_seconds", {}, _STARTED_S
    yield "process_cpu_seconds_total", {}, usage.ru_utime + usage.ru_stime
    yield "nova_greenlets", {}, green.count()
    try:
        with open("/proc/self/statm") as stream:
            yield "process_resident_memory_bytes", {}, int(stream.read().split()[1]) * resource.getpagesize()
        yield "process_open_fds", {}, len(os.listdir("/proc/self/fd"))
    except OSError:
        return


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: Any) -> str:
    return str(value).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
