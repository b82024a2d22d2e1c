"""Numbers about this process, for Prometheus and for people.

A `Registry` belongs to a launcher: services add counters as they work, and gauges are read when somebody asks.
Labels are names of methods and tasks that exist, never what a caller sends, so their number is bounded.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from nova import exposition, green
from nova.exposition import Sample


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
    """Sources of samples, asked in order; what a sample means is in `exposition.HELP`."""

    def __init__(self) -> None:
        self._sources: list[Callable[[], Iterable[Sample]]] = [process_samples]

    def add(self, source: Callable[[], Iterable[Sample]]) -> None:
        self._sources.append(source)

    def text(self) -> str:
        """All samples in Prometheus's format."""
        return exposition.text(sample for source in self._sources for sample in source())


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
