"""What waits for what: a tree for the terminal, Mermaid and Graphviz for documents. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from novad.client.render.paint import Paint
from novad.client.render.words import SHAPES
from novad.core.spec import Cluster

Edges = dict[str, list[tuple[str, str]]]


def edges(cluster: Cluster) -> Edges:
    """Service -> what it waits for, as (service, condition), replicas taken together."""
    service_of = {item.name: item.service for item in cluster.processes}
    found: Edges = {}
    for item in cluster.processes:
        targets = found.setdefault(item.service, [])
        for dependency in item.after:
            edge = (service_of.get(dependency.name, dependency.name), dependency.condition)
            if edge not in targets:
                targets.append(edge)
    return found


def tree(cluster: Cluster, states: Mapping[str, str], paint: Paint) -> list[str]:
    """Each service below what it waits for; one that waits for several stands below the first and names the rest."""
    waits = edges(cluster)
    below: dict[str, list[str]] = {}
    roots = []
    for service, targets in waits.items():
        if targets:
            below.setdefault(targets[-1][0], []).append(service)
        else:
            roots.append(service)
    lines: list[str] = []
    for root in roots:
        lines += branch(root, "", "", below, waits, states, paint)
    return lines


def branch(
    service: str,
    head: str,
    indent: str,
    below: dict[str, list[str]],
    waits: Edges,
    states: Mapping[str, str],
    paint: Paint,
) -> list[str]:
    state = states.get(service, "")
    shape, style = SHAPES.get(state, ("", ""))
    others = [describe(edge) for edge in waits[service][:-1]]
    also = paint(f"  also after {', '.join(others)}", "dim") if others else ""
    lines = [
        f"{head}{paint.service(service, service)}{' ' + paint(f'{shape} {state}', style) if state else ''}{also}"
    ]
    children = below.get(service, [])
    for index, child in enumerate(children):
        is_last = index == len(children) - 1
        lines += branch(
            child,
            f"{indent}{'└─ ' if is_last else '├─ '}",
            f"{indent}{'   ' if is_last else '│  '}",
            below,
            waits,
            states,
            paint,
        )
    return lines


def describe(edge: tuple[str, str]) -> str:
    name, condition = edge
    return name if condition == "ready" else f"{name}:{condition}"


def mermaid(cluster: Cluster) -> list[str]:
    """A Mermaid flowchart; GitHub draws it in Markdown."""
    lines = ["flowchart LR"]
    for service, targets in edges(cluster).items():
        lines.append(f'  {identifier(service)}["{service}"]')
        lines += [
            f"  {identifier(target)} -->{'' if condition == 'ready' else f'|{condition}|'} {identifier(service)}"
            for target, condition in targets
        ]
    return lines


def identifier(name: str) -> str:
    """A node name that is no keyword of Mermaid (`end` is one)."""
    return "s_" + "".join(letter if letter.isalnum() else "_" for letter in name)


def dot(cluster: Cluster) -> list[str]:
    """A Graphviz digraph."""
    lines = ["digraph novad {", "  rankdir=LR;"]
    for service, targets in edges(cluster).items():
        lines.append(f'  "{service}";')
        lines += [
            f'  "{target}" -> "{service}"{"" if condition == "ready" else f" [label={condition}]"};'
            for target, condition in targets
        ]
    return [*lines, "}"]
