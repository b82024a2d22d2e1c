"""Exchanges: which bindings a routing key or a set of headers reaches.

Pure. A router is one exchange type's index of bindings: `add`, `remove`, `match`. Bindings lead to queues or to
other exchanges; following them is the virtual host's task. Rules: AMQP 0-9-1 section 3.1.3, headers as in
RabbitMQ (`all`, `any`, and the `-with-x` forms that also compare keys beginning with `x-`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from nova.broker import properties
from nova.broker.arguments import field_type
from nova.broker.errors import PRECONDITION_FAILED, AmqpFault

if TYPE_CHECKING:
    from nova.broker.queue import Queue


class Binding:
    """From an exchange to a queue or an exchange. Two with the same `key` are the same binding."""

    __slots__ = ("arguments", "destination", "routing_key", "source")

    def __init__(
        self, source: Exchange, destination: Queue | Exchange, routing_key: str, arguments: Mapping[str, Any]
    ) -> None:
        self.source = source
        self.destination = destination
        self.routing_key = routing_key
        self.arguments = dict(arguments)

    @property
    def key(self) -> tuple[int, str, str]:
        return id(self.destination), self.routing_key, repr(sorted(self.arguments.items()))


class Router(Protocol):
    def add(self, binding: Binding) -> None: ...

    def remove(self, binding: Binding) -> None: ...

    def match(self, routing_key: str, header: bytes) -> Iterable[Binding]: ...


class DirectRouter:
    """The routing key equals the binding key."""

    def __init__(self) -> None:
        self._by_key: dict[str, list[Binding]] = {}

    def add(self, binding: Binding) -> None:
        self._by_key.setdefault(binding.routing_key, []).append(binding)

    def remove(self, binding: Binding) -> None:
        bindings = self._by_key[binding.routing_key]
        bindings.remove(binding)
        if not bindings:
            del self._by_key[binding.routing_key]

    def match(self, routing_key: str, header: bytes) -> Iterable[Binding]:
        return self._by_key.get(routing_key, ())


class FanoutRouter:
    """Everything."""

    def __init__(self) -> None:
        self._bindings: dict[int, Binding] = {}

    def add(self, binding: Binding) -> None:
        self._bindings[id(binding)] = binding

    def remove(self, binding: Binding) -> None:
        del self._bindings[id(binding)]

    def match(self, routing_key: str, header: bytes) -> Iterable[Binding]:
        return self._bindings.values()


class _Node:
    __slots__ = ("bindings", "children")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.bindings: list[Binding] = []


class TopicRouter:
    """Words between dots; `*` stands for one word, `#` for any number: a trie of the binding keys' words."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, binding: Binding) -> None:
        node = self._root
        for word in _words(binding.routing_key):
            node = node.children.setdefault(word, _Node())
        node.bindings.append(binding)

    def remove(self, binding: Binding) -> None:
        path, node = [], self._root
        for word in _words(binding.routing_key):
            path.append((node, word))
            node = node.children[word]
        node.bindings.remove(binding)
        for parent, word in reversed(path):
            child = parent.children[word]
            if child.bindings or child.children:
                break
            del parent.children[word]

    def match(self, routing_key: str, header: bytes) -> Iterable[Binding]:
        words = _words(routing_key)
        # Pairs already visited are skipped: several `#` would otherwise cost exponentially many steps.
        todo, seen = [(self._root, 0)], set()
        while todo:
            node, position = todo.pop()
            if (id(node), position) in seen:
                continue
            seen.add((id(node), position))
            if position == len(words):
                yield from node.bindings
            todo.extend(_steps(node, words, position))


def _words(key: str) -> list[str]:
    return key.split(".") if key else []


def _steps(node: _Node, words: list[str], position: int) -> Iterator[tuple[_Node, int]]:
    many = node.children.get("#")
    if many is not None:
        for end in range(position, len(words) + 1):
            yield many, end
    if position < len(words):
        for word in (words[position], "*"):
            child = node.children.get(word)
            # A literal `#` in a routing key is a word like any other; its node was taken above already.
            if child is not None and child is not many:
                yield child, position + 1


class HeadersRouter:
    """The binding's arguments against the message's headers; the routing key plays no part."""

    def __init__(self) -> None:
        self._bindings: dict[int, Binding] = {}

    def add(self, binding: Binding) -> None:
        self._bindings[id(binding)] = binding

    def remove(self, binding: Binding) -> None:
        del self._bindings[id(binding)]

    def match(self, routing_key: str, header: bytes) -> Iterable[Binding]:
        headers = properties.read(header, "headers") or {}
        return [binding for binding in self._bindings.values() if _agrees(binding.arguments, headers)]


def _agrees(arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    how = arguments.get("x-match", "all")
    compared = (
        key in headers and (value is None or _same(value, headers[key]))
        for key, value in arguments.items()
        if key != "x-match" and (how.endswith("-with-x") or not key.startswith("x-"))
    )
    return any(compared) if how.startswith("any") else all(compared)


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


_MATCHES = ("all", "any", "all-with-x", "any-with-x")
ROUTERS: dict[str, type[DirectRouter | FanoutRouter | TopicRouter | HeadersRouter]] = {
    "direct": DirectRouter,
    "fanout": FanoutRouter,
    "topic": TopicRouter,
    "headers": HeadersRouter,
}


class Exchange:
    """A named router. `bindings` are those that leave it, `incoming` those of other exchanges that lead here."""

    def __init__(
        self,
        name: str,
        type: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Mapping[str, Any] | None = None,
        alternate: str | None = None,
    ) -> None:
        self.name = name
        self.type = type
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments = dict(arguments or {})
        self.alternate = alternate
        self.bindings: dict[tuple[int, str, str], Binding] = {}
        self.incoming: dict[int, Binding] = {}
        self.published = 0
        self._router: Router = ROUTERS[type]()

    @property
    def is_by_key(self) -> bool:
        """Whether the routing key alone decides, so that a routing may be remembered."""
        return self.type != "headers"

    def check_binding(self, arguments: Mapping[str, Any]) -> None:
        """Raises `AmqpFault` for arguments that this type refuses."""
        if self.type != "headers" or "x-match" not in arguments:
            return
        how = arguments["x-match"]
        if not isinstance(how, str):
            text = f"Invalid x-match field type {field_type(how)} (value {how}); expected longstr"
            raise AmqpFault(PRECONDITION_FAILED, text)
        if how not in _MATCHES:
            text = f'Invalid x-match field value <<"{how}">>; expected all, any, all-with-x, or any-with-x'
            raise AmqpFault(PRECONDITION_FAILED, text)

    def add(self, binding: Binding) -> bool:
        """False where the binding exists already."""
        if binding.key in self.bindings:
            return False
        self.bindings[binding.key] = binding
        self._router.add(binding)
        return True

    def remove(self, binding: Binding) -> bool:
        """False where there is no such binding."""
        existing = self.bindings.pop(binding.key, None)
        if existing is None:
            return False
        self._router.remove(existing)
        return True

    def match(self, routing_key: str, header: bytes) -> Iterable[Binding]:
        """The bindings that this publication follows. Raises `MalformedHeader` (type headers only)."""
        return self._router.match(routing_key, header)
