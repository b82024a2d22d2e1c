"""Laying the files over one another: nova.toml, nova.local.toml, the chosen profile.

Tables merge, arrays and scalars replace, `unset` removes. A profile may be in any file; it lies above all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import tomli

from novad.config.position import Path
from novad.config.report import Fault
from novad.config.source import Source, Span
from novad.config.suggest import did_you_mean
from novad.config.tree import Layer, Node, Origin, merge, on_layer, put

OVERLAID = ("novad", "env", "defaults", "services", "groups")
NOWHERE = Origin(Source("", "", ""), Span(0, 0), Span(0, 0))


@dataclass(frozen=True)
class Assembled:
    """The one tree that counts. `skipped` are services that the profile leaves out."""

    root: Node
    skipped: frozenset[str]
    faults: tuple[Fault, ...]


def assemble(trees: list[Node], profile: str) -> Assembled:
    """The overlay of `trees`, in rising precedence, and of `profile` where it is not empty."""
    root = Node({}, trees[0].origin if trees else NOWHERE)
    faults: list[Fault] = []
    for number, tree in enumerate(trees):
        if number:
            root = _without(root, tree, faults)
        elif (unset := tree.get("unset")) is not None:
            help = "remove the key itself; `unset` is for nova.local.toml and profiles"
            faults.append(unset.origin.fault("`unset` has nothing to remove here", help, on_key=True))
        root = put(merge(root, tree), ("unset",), None)
    chosen = root.get("profile", profile) if profile else None
    if chosen is None:
        if profile:
            faults.append(_no_profile(root, profile))
        return Assembled(root, frozenset(), tuple(faults))
    overlay = on_layer(chosen, Layer(2, f"profile {profile}"))
    root = merge(_without(root, overlay, faults), _as_file(overlay))
    root, skipped = _skip(root, overlay, faults)
    return Assembled(root, skipped, tuple(faults))


def _no_profile(root: Node, profile: str) -> Fault:
    profiles = root.get("profile")
    known = list(profiles.table()) if profiles else []
    help = did_you_mean(profile, known) or ("this project has no profiles",)
    return Fault(f"there is no profile `{profile}`", help=help)


def _as_file(overlay: Node) -> Node:
    """The overlay in the shape of a file."""
    table = {key: inner for key, inner in overlay.table().items() if key in OVERLAID}
    root = Node(table, overlay.origin)
    on_crash = overlay.get("on_crash")
    return put(root, ("novad", "on_crash"), on_crash) if on_crash else root


def _skip(root: Node, overlay: Node, faults: list[Fault]) -> tuple[Node, frozenset[str]]:
    skip = overlay.get("skip")
    services = root.get("services")
    known = list(services.table()) if services else []
    skipped = set()
    for item in skip.value if skip and isinstance(skip.value, list) else ():
        if item.value in known:
            skipped.add(item.value)
            root = put(root, ("services", item.value), None)
        elif isinstance(item.value, str):
            faults.append(
                item.origin.fault(f"there is no service `{item.value}` to skip", *did_you_mean(item.value, known))
            )
    return root, frozenset(skipped)


def _without(root: Node, overlay: Node, faults: list[Fault]) -> Node:
    """`root` without the keys that the `unset` of `overlay` names."""
    unset = overlay.get("unset")
    for item in unset.value if unset and isinstance(unset.value, list) else ():
        path = _path(item.value)
        if path and root.get(*path) is not None:
            root = put(root, path, None)
        elif isinstance(item.value, str):
            known = list(_dotted(root)) if path else []
            help = did_you_mean(item.value, known) if len(known) > 12 else ()
            faults.append(item.origin.fault(f"there is no `{item.value}` to unset", *help))
    return root


def _path(text: object) -> Path:
    """The path that a dotted key means; empty where it is none."""
    try:
        table: object = tomli.loads(f"{text} = 0")
    except (ValueError, RecursionError):
        return ()
    path: Path = ()
    while isinstance(table, dict) and len(table) == 1:
        (key,) = table
        path += (key,)
        table = table[key]
    return path if table == 0 else ()


def _dotted(node: Node, prefix: str = "") -> Iterator[str]:
    for key, inner in node.table().items():
        yield f"{prefix}{key}"
        yield from _dotted(inner, f"{prefix}{key}.")
