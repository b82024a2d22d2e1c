"""Harmless values in the place of wrong ones.

A fault is reported once, where it was made. What others may refer to (a service, its port, its URL) therefore
stays there in name, and a table that would be pointless without the wrong entry gets one that makes sense.
"""

from __future__ import annotations

from novad.config.model import model_at
from novad.config.position import Path
from novad.config.suggest import counterpart, nearest
from novad.config.tree import Node, put


def stand_in(tree: Node, path: Path) -> Node:
    """The tree with something harmless instead of the value at `path`, or without it."""
    path = _named(path)
    if not path:
        return Node({}, tree.origin)
    at = tree.nearest(path)

    def instead(place: Path, value: object) -> Node:
        return put(put(tree, path, None), place, Node(value, at.origin))

    inside = path[2:] if path[0] == "profile" else path
    match inside:
        case ("services", _):
            return instead(path, {"command": Node("true", at.origin)})
        case ("services", _, key) if _is_program(key, path):
            return instead((*path[:-1], "command"), "true")
        case ("services", _, "url"):
            return instead(path, "")
        case ("services", _, "ports", _):
            return instead(path, "auto")
        case ("services", _, "ready", _) | ("defaults", "ready", _):
            return instead((*path[:-1], "notify"), True)
        case ("services", _, "health", _) | ("defaults", "health", _):
            return instead((*path[:-1], "exec"), "true")
    return put(tree, path, None)


def _named(path: Path) -> Path:
    """The path up to its first array index: a list with a wrong item goes as a whole."""
    for length, part in enumerate(path):
        if isinstance(part, int):
            return path[:length]
    return path


def _is_program(key: str | int, path: Path) -> bool:
    """Whether the key says what a service runs, or would if it were spelled right."""
    table = model_at(path[:-1])
    known = list(table.model_fields) if table else []
    meant = key if key in known else counterpart(str(key), known) or nearest(str(key), known)
    return meant in ("command", "python")
