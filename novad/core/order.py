"""The `after` graph: who may start, who may stop, who needs whom.

Pure functions of definitions and processes. A dependency names a process or a service; a service stands for all
its replicas. Stopping runs against the arrows: whoever depends goes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from novad.core.process import ALIVE, Process, State
from novad.core.spec import Condition, Dependency, ProcessSpec

HOLDS: dict[Condition, frozenset[State]] = {
    "started": frozenset({"starting", "ready", "done"}),
    "ready": frozenset({"ready", "done"}),
    "done": frozenset({"done"}),
}


@dataclass(frozen=True, slots=True)
class Unmet:
    """A dependency that does not hold yet: of which process, what is asked, what it is."""

    name: str
    condition: Condition
    state: State


class Graph:
    """The dependencies of one cluster, resolved to process names."""

    def __init__(self, specs: Iterable[ProcessSpec]) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._replicas: dict[str, list[str]] = {}
        for spec in self._specs.values():
            self._replicas.setdefault(spec.service, []).append(spec.name)
        self._dependents: dict[str, list[str]] = {name: [] for name in self._specs}
        for name in self._specs:
            for target in self.targets(name):
                self._dependents[target].append(name)

    def targets(self, name: str) -> list[str]:
        """The processes that `name` waits for, in the order of its `after`, each once."""
        found = (target for item in self._specs[name].after for target in self._resolve(item))
        return [target for target in dict.fromkeys(found) if target != name]

    def _resolve(self, dependency: Dependency) -> list[str]:
        if dependency.name in self._specs:
            return [dependency.name]
        return self._replicas.get(dependency.name, [])

    def dependents(self, name: str) -> list[str]:
        """The processes that wait for `name`."""
        return self._dependents.get(name, [])

    def dependent_closure(self, names: Iterable[str]) -> list[str]:
        """`names` and all that waits for them, directly or not; nearest first."""
        seen = dict.fromkeys(names)
        queue = list(seen)
        for name in queue:
            fresh = [item for item in self.dependents(name) if item not in seen]
            seen |= dict.fromkeys(fresh)
            queue += fresh
        return list(seen)

    def closure(self, names: Iterable[str]) -> list[str]:
        """`names` and all that they need, needs first."""
        seen: dict[str, None] = {}
        path: list[tuple[str, bool]] = [(name, False) for name in reversed(list(names))]
        entered: set[str] = set()
        while path:
            name, is_left = path.pop()
            if is_left:
                seen[name] = None
            elif name not in entered:
                entered.add(name)
                path.append((name, True))
                path += [(target, False) for target in reversed(self.targets(name))]
        return list(seen)

    def unmet(self, name: str, processes: Mapping[str, Process]) -> list[Unmet]:
        """What still keeps `name` from starting."""
        found = []
        for dependency in self._specs[name].after:
            for target in self._resolve(dependency):
                process = processes.get(target)
                if target == name or process is None or process.state in HOLDS[dependency.condition]:
                    continue
                found.append(Unmet(target, dependency.condition, process.state))
        return found

    def stalled(self, name: str, processes: Mapping[str, Process]) -> list[Unmet]:
        """Of what keeps `name` from starting, what may never come: it is down or fails, or waits for what does."""
        return [
            item
            for item in self.unmet(name, processes)
            if item.state in ("stopped", "stopping", "failed", "backoff")
            or (item.state == "waiting" and self.stalled(item.name, processes))
        ]

    def holds_up(self, name: str, leaving: Iterable[str], processes: Mapping[str, Process]) -> list[str]:
        """Of the processes that are `leaving` too, those that still need `name` and are alive."""
        also = set(leaving)
        return [
            other for other in self._dependents.get(name, []) if other in also and processes[other].state in ALIVE
        ]


def find_cycle(edges: Mapping[str, Iterable[str]]) -> list[str] | None:
    """A cycle as a path that ends where it began (`a b a`), or None."""
    done: set[str] = set()
    for root in edges:
        path: list[str] = []
        stack: list[tuple[str, bool]] = [(root, False)]
        while stack:
            name, is_left = stack.pop()
            if is_left:
                done.add(path.pop())
            elif name in path:
                return [*path[path.index(name) :], name]
            elif name not in done:
                path.append(name)
                stack.append((name, True))
                stack += [(target, False) for target in edges.get(name, ())]
    return None
