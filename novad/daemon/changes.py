"""Restarting processes whose watched files change.

Off until somebody asks for it (`novad up --watch`). What a change means is decided here, per process: which of its
globs match, and that several changes within its debounce are one. A restart for a change is a human's wish: it
re-arms a process that has failed and is no failure itself; a process that is wanted down stays down.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable

from novad.core import glob
from novad.core.messages import Restart
from novad.core.spec import Cluster, ProcessSpec
from novad.daemon.supervisor import Supervisor
from novad.host.hub import Timer
from novad.host.launch import SpawnError
from novad.host.record import Records
from novad.host.watch import FileWatch

# A watching process that died is replaced after this long.
AGAIN_S = 1.0


class Changes:
    """The watch of one cluster. `post(act)` has something done in the loop, `remark(text)` is for a reader."""

    def __init__(
        self,
        supervisor: Supervisor,
        records: Records,
        post: Callable[[Callable[[], None]], None],
        remark: Callable[[str], None],
    ) -> None:
        self._supervisor = supervisor
        self._records = records
        self._post = post
        self._remark = remark
        self._is_on = False
        self._has_begun = False
        self._watch: FileWatch | None = None
        self._roots: tuple[str, ...] = ()
        self._due: dict[str, Timer] = {}
        self._patterns: dict[str, list[re.Pattern[str]]] = {}

    @property
    def is_on(self) -> bool:
        return self._is_on

    @property
    def is_settled(self) -> bool:
        """Whether what was switched is in effect: every change from now on is seen, or none."""
        return self._watch is None or self._has_begun

    @property
    def names(self) -> list[str]:
        """The processes that watch files."""
        return [name for name, process in self._supervisor.processes.items() if process.spec.watch]

    def switch(self, on: bool) -> None:
        """Begin or end to watch. Raises `SpawnError` or `OSError` where it cannot begin."""
        self._is_on = on
        try:
            self.refresh()
        except (SpawnError, OSError):
            self._is_on = False
            raise
        finally:
            self._records.remember_watch(self._is_on)

    def resume(self) -> None:
        """Go on watching where the novad before us did."""
        if self._records.is_watch_on():
            self._is_on = True
            self._again()

    def refresh(self) -> None:
        """Watch what the present definitions ask for."""
        cluster = self._supervisor.cluster
        specs = [self._supervisor.processes[name].spec for name in self.names] if cluster and self._is_on else []
        self._patterns = {spec.name: [glob.compiled(item) for item in _globs(cluster, spec)] for spec in specs}
        roots = _roots(item for spec in specs for item in _globs(cluster, spec))
        if roots == self._roots and (self._watch or not roots):
            return
        self._end()
        self._roots = roots
        if roots:
            self._has_begun = False
            self._watch = FileWatch(roots, self._changed, self._lost)

    def close(self) -> None:
        self._is_on = False
        self._end()

    def _end(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._roots = ()
        for timer in self._due.values():
            timer.cancel()
        self._due.clear()

    def _lost(self) -> None:
        self._watch = None
        self._remark("the process that watches files died; another one follows")
        Timer(AGAIN_S, lambda: self._post(self._again))

    def _again(self) -> None:
        try:
            self.refresh()
        except (SpawnError, OSError) as error:
            self._remark(f"files are not watched any more: {error}")
            self._is_on = False

    # -- a change (in the hub)

    def _changed(self, paths: list[str]) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._post(lambda: None)
        for name, patterns in self._patterns.items():
            path = next((path for path in paths if any(pattern.match(path) for pattern in patterns)), None)
            if path is not None:
                self._debounce(name, path)

    def _debounce(self, name: str, path: str) -> None:
        process = self._supervisor.processes.get(name)
        if process is None or process.spec.watch is None or process.seat is not None:
            # Who debugs it on a terminal edits these very files.
            return
        if name in self._due:
            self._due[name].cancel()
        self._due[name] = Timer(
            process.spec.watch.debounce_s, lambda: self._post(lambda: self._restart(name, path))
        )

    def _restart(self, name: str, path: str) -> None:
        self._due.pop(name, None)
        process = self._supervisor.processes.get(name)
        cluster = self._supervisor.cluster
        if process is None or cluster is None or process.want == "down":
            return
        self._supervisor.apply(name, Restart(cause=f"{os.path.relpath(path, cluster.dir)} changed"))
        self._supervisor.settle()


def _globs(cluster: Cluster | None, spec: ProcessSpec) -> list[str]:
    """The globs of a process, absolute."""
    if cluster is None or spec.watch is None:
        return []
    found = [os.path.normpath(os.path.join(cluster.dir, item)) for item in spec.watch.globs]
    # normpath takes the slash away that stands for all that is below.
    return [
        f"{made}/" if item.endswith("/") else made for made, item in zip(found, spec.watch.globs, strict=True)
    ]


def _roots(globs: Iterable[str]) -> tuple[str, ...]:
    """The directories to watch, none below another. What does not exist yet is seen from above."""
    found = set()
    for item in globs:
        root = glob.base(item)
        while not os.path.isdir(root):
            root = os.path.dirname(root)
        found.add(root)
    return tuple(
        sorted(
            root
            for root in found
            if not any(root.startswith(f"{other.rstrip('/')}/") for other in found - {root})
        )
    )
