"""Configuration values that know where they come from.

A `Node` is one value of a file together with its origin. Files are overlaid with `merge`: tables merge, arrays
and scalars replace, and a replaced value stays reachable as `under`, because an environment variable may be
built on the one below it. Nodes are never changed once they are built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from novad.config.position import Path, Place, positions
from novad.config.report import Fault
from novad.config.source import Source, Span


class Layer(NamedTuple):
    """A level of precedence: the higher rank wins. `label` names it to the user, empty for the base file."""

    rank: int
    label: str = ""


BASE = Layer(0)
LOCAL = Layer(1)


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a value was written."""

    source: Source
    key: Span
    value: Span
    layer: Layer = BASE

    def __str__(self) -> str:
        place = f"{self.source.shown}:{self.source.locate(self.key.start)[0]}"
        return f"{self.layer.label}, {place}" if self.layer.label else place

    def fault(self, message: str, *help: str, on_key: bool = False) -> Fault:
        """A fault that points at the value, or at its key."""
        return Fault(message, self.source, self.key if on_key else self.value, help)


@dataclass(frozen=True, eq=False)
class Node:
    """A value: a scalar, a list of nodes, or a dict of nodes."""

    value: Any
    origin: Origin
    under: Node | None = None

    def get(self, *path: str | int) -> Node | None:
        """The node at `path` below this one."""
        node: Node | None = self
        for part in path:
            if node is None:
                return None
            match part, node.value:
                case str(), dict() as table:
                    node = table.get(part)
                case int(), list() as items:
                    node = items[part] if part < len(items) else None
                case _:
                    return None
        return node

    def nearest(self, path: Path) -> Node:
        """The node at `path`, or the closest that exists above it."""
        node = self
        for part in path:
            inner = node.get(part)
            if inner is None:
                return node
            node = inner
        return node

    def table(self) -> dict[str, Node]:
        """The entries, none where this is not a table."""
        return self.value if isinstance(self.value, dict) else {}

    def text_at(self, fragment: str | None) -> Span:
        """The span of `fragment` inside this value's text, or of the whole value where it is not found."""
        start, end = self.origin.value
        found = self.origin.source.text.find(fragment, start, end) if fragment else -1
        return Span(found, found + len(fragment)) if fragment and found >= 0 else self.origin.value

    def strings(self) -> Iterator[str]:
        """Every string in this value."""
        match self.value:
            case str() as text:
                yield text
            case dict() as table:
                for inner in table.values():
                    yield from inner.strings()
            case list() as items:
                for inner in items:
                    yield from inner.strings()


def build(data: dict[str, Any], source: Source) -> Node:
    """The tree of a parsed file."""
    whole = Place(Span(0, 0), Span(0, 0))
    return _build(data, (), source, positions(source.text), whole)


def _build(value: Any, path: Path, source: Source, places: dict[Path, Place], above: Place) -> Node:
    place = places.get(path, above)
    inner: Any = value
    if isinstance(value, dict):
        inner = {key: _build(item, (*path, key), source, places, place) for key, item in value.items()}
    elif isinstance(value, list):
        inner = [_build(item, (*path, index), source, places, place) for index, item in enumerate(value)]
    return Node(inner, Origin(source, place.key, place.value))


def plain(node: Node) -> Any:
    """The value without origins, as the parser gave it."""
    match node.value:
        case dict() as table:
            return {key: plain(inner) for key, inner in table.items()}
        case list() as items:
            return [plain(inner) for inner in items]
        case value:
            return value


def merge(low: Node, high: Node) -> Node:
    """`high` laid over `low`."""
    if not (isinstance(low.value, dict) and isinstance(high.value, dict)):
        return replace(high, under=low)
    table = dict(low.value)
    for key, inner in high.value.items():
        table[key] = merge(table[key], inner) if key in table else inner
    return Node(table, low.origin)


def put(node: Node, path: Path, value: Node | None) -> Node:
    """The tree with `value` at `path`, or without that entry. Tables that are missing on the way are made."""
    key, *rest = path
    assert isinstance(key, str)
    table = dict(node.table())
    if rest:
        table[key] = put(table.get(key) or Node({}, node.origin), tuple(rest), value)
    elif value is None:
        table.pop(key, None)
    else:
        table[key] = value
    return replace(node, value=table)


def on_layer(node: Node, layer: Layer) -> Node:
    """The same tree as part of `layer`."""
    value = node.value
    if isinstance(value, dict):
        value = {key: on_layer(inner, layer) for key, inner in value.items()}
    elif isinstance(value, list):
        value = [on_layer(inner, layer) for inner in value]
    return replace(node, value=value, origin=replace(node.origin, layer=layer))
