"""Order fuzzing: a start in which every order that the graph leaves free is as likely as any other. Pure.

Starts that only work because two services happen to be quick enough pass for years. Here they are started strictly
one after another, in a random order that keeps every `after`; what fails then had an `after` too few.
"""

from __future__ import annotations

import random
from dataclasses import replace

from novad.core.spec import Cluster, Condition, Dependency, ProcessSpec


def shuffled(cluster: Cluster, seed: int) -> tuple[Cluster, list[str]]:
    """The cluster with one more `after` for each process, the one before it in the order; and that order."""
    order = order_of(list(cluster.processes), random.Random(seed))
    previous = dict(zip(order[1:], order, strict=False))
    specs = {spec.name: spec for spec in cluster.processes}

    def chained(spec: ProcessSpec) -> ProcessSpec:
        before = previous.get(spec.name)
        if before is None:
            return spec
        condition: Condition = "done" if specs[before].oneshot else "ready"
        return replace(spec, after=(*spec.after, Dependency(before, condition)))

    return replace(cluster, processes=tuple(map(chained, cluster.processes))), order


def order_of(specs: list[ProcessSpec], chance: random.Random) -> list[str]:
    """A random order in which each process comes after all that it waits for."""
    left = {spec.name: spec for spec in sorted(specs, key=lambda spec: spec.name)}
    order: list[str] = []
    while left:
        free = [spec for spec in left.values() if not needs(spec, list(left.values()))]
        chosen = chance.choice(free)
        order.append(chosen.name)
        del left[chosen.name]
    return order


def needs(spec: ProcessSpec, others: list[ProcessSpec]) -> bool:
    """Whether `spec` waits for any of `others`, named as a process or as a service."""
    names = {dependency.name for dependency in spec.after}
    return any(other is not spec and (other.name in names or other.service in names) for other in others)


def told(order: list[str], name: str, seed: int) -> str:
    """What a failure of `name` in this order suggests."""
    later = order[order.index(name) + 1 :]
    if not later:
        return f"{name} was started last, so no order explains it (--seed {seed} repeats this one)"
    return (
        f"{name} was started before {', '.join(later)}: does it need one of them without saying so in `after`? "
        f"(--seed {seed} repeats this order)"
    )
