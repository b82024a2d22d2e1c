"""Who owns this cluster: it goes down when the last holder of the lease is gone.

`grace_s` is how long services get for their end then; None is what each of them says. A holder may name a process
that it belongs to itself, a test run's controller for instance, whose death ends the cluster at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from novad.host.hub import Watcher


@dataclass
class Lease:
    holders: int = 0
    grace_s: float | None = None
    _watched: dict[int, Watcher] = field(default_factory=dict)

    def watch(self, pid: int, on_death: Callable[[], None]) -> None:
        """Have `on_death` called when `pid` dies, at once when it is dead."""
        if pid in self._watched:
            return
        try:
            pidfd = os.pidfd_open(pid)
        except (OSError, OverflowError):
            on_death()
            return

        def died() -> None:
            self._watched[pid].close()
            os.close(pidfd)
            on_death()

        self._watched[pid] = Watcher(pidfd, died)
