"""CPU and memory of process trees, measured when somebody asks and never on a tick."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from novad.host import clock


@dataclass(frozen=True, slots=True)
class Usage:
    """`cpu_percent` of one core since the last question (since the start, the first time); `rss_bytes` now."""

    cpu_percent: float
    rss_bytes: int


class Meter:
    """Remembers the last reading of each tree, because a percentage needs two."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[float, float]] = {}

    def measure(self, trees: dict[str, list[int]]) -> dict[str, Usage]:
        """The usage of each tree, given as pids with the leader first; a dead pid counts nothing."""
        found = {name: self._measure(pids) for name, pids in trees.items() if pids}
        leaders = {pids[0] for pids in trees.values() if pids}
        self._last = {pid: last for pid, last in self._last.items() if pid in leaders}
        return found

    def _measure(self, pids: list[int]) -> Usage:
        cpu_s, rss_bytes, started = 0.0, 0, 0.0
        for pid in pids:
            try:
                process = psutil.Process(pid)
                with process.oneshot():
                    times = process.cpu_times()
                    rss_bytes += process.memory_info().rss
                    started = started or process.create_time()
            except psutil.Error:
                continue
            cpu_s += times.user + times.system
        now_s = clock.now_s()
        before_s, before_cpu_s = self._last.get(pids[0], (now_s - max(clock.wall() - started, 0.01), 0.0))
        self._last[pids[0]] = (now_s, cpu_s)
        elapsed_s = now_s - before_s
        share = 0.0 if elapsed_s <= 0 else max(cpu_s - before_cpu_s, 0.0) / elapsed_s
        return Usage(round(100 * share, 1), rss_bytes)
