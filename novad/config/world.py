"""What the names in `${...}` mean.

A `World` holds every process that is being compiled, with its ports, and answers for each of them what
`port.http`, `services.broker.url` or `env.HOME` is. Names may lead to further templates; a circle is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from novad.config.environment import Variables
from novad.config.interpolate import Unresolved, expand
from novad.config.model import Service
from novad.config.suggest import did_you_mean, nearest
from novad.config.tree import Node

FIXED = ("dir", "run_dir", "namespace")
NAMES = (*FIXED, "name", "n", "port")
PATTERNS = ("port.NAME", "services.NAME.url", "services.NAME.port.NAME", "env.VAR")
OTHER = re.compile(r"services\.(?P<owner>.+?)\.(?:(?P<url>url)|port(?:\.(?P<port>[^.]+))?)")
MAX_CHAIN = 50
IMPLICIT_PORT = "port"  # the name of the port of a service that uses ${port} and lists none


@dataclass
class Draft:
    """A process in the making; `ports` maps names to numbers once they are chosen."""

    name: str
    service: str
    n: int
    model: Service
    node: Node
    variables: Variables
    ports: dict[str, int] = field(default_factory=dict)


class Misplaced(Unresolved):
    """An unresolved name together with the value it stands in."""

    def __init__(self, error: Unresolved, node: Node) -> None:
        super().__init__(error.message, error.fragment, *error.help)
        self.node = node


class World:
    """The names of one cluster. `variables` are those of the project, for values that belong to no process."""

    def __init__(self, fixed: Mapping[str, str], shell: Mapping[str, str], variables: Variables) -> None:
        self.fixed = fixed
        self.shell = shell
        self.variables = variables
        self.drafts: dict[str, Draft] = {}
        self.absent: dict[str, str] = {}  # services without a process, and why
        self._open: list[tuple[tuple[str, ...], str, Node]] = []  # templates being expanded: key, label, value

    def add(self, draft: Draft) -> None:
        self.drafts[draft.name] = draft

    def expand(self, node: Node, text: str, draft: Draft | None = None) -> str:
        """`text`, which stands in `node`, with every name replaced. Raises `Misplaced`."""
        return self._expand(node, text, partial(self.lookup, draft))

    def _expand(self, node: Node, text: str, lookup: partial[str | None]) -> str:
        try:
            return expand(text, lookup)
        except Misplaced:
            raise
        except Unresolved as error:
            raise Misplaced(error, node) from error

    def lookup(self, draft: Draft | None, name: str, inside: tuple[str, int] | None = None) -> str | None:
        """The value of `name` for a process; `inside` is the variable, and its binding, that is being expanded.

        Raises `Unresolved`.
        """
        kind, _, rest = name.partition(".")
        if name in FIXED:
            return self.fixed[name]
        if kind == "env" and rest:
            return self.variable(draft, rest, inside[1] if inside and inside[0] == rest else None)
        if not self.drafts and kind in ("services", "port", "name", "n"):
            help = "what is read before the services may use " + ", ".join(f"${{{fixed}}}" for fixed in FIXED)
            raise Unresolved(f"`{name}` is not known yet where this is read", None, f"{help}, ${{env.VAR}}")
        if match := OTHER.fullmatch(name):
            return self._of_other(match["owner"], match["port"], bool(match["url"]))
        if name in NAMES or (kind == "port" and rest):
            return self._of_process(draft, name, rest)
        raise self._unknown(draft, name)

    def _of_process(self, draft: Draft | None, name: str, port: str) -> str:
        if draft is None:
            raise Unresolved(f"`{name}` is known in services only", None)
        if name == "name":
            return draft.name
        if name == "n":
            return str(draft.n)
        return _port(draft, port)

    def _of_other(self, owner: str, port: str | None, is_url: bool) -> str:
        draft = self._find(owner)
        if not is_url:
            return _port(draft, port or "")
        value = self.url(draft)
        if value is None:
            raise Unresolved(f"`{owner}` has no url", None, f"give [services.{owner}] a `url`")
        return value

    def _find(self, owner: str) -> Draft:
        found = self.drafts.get(owner) or self.drafts.get(f"{owner}.1")
        if found is None and owner in self.absent:
            raise Unresolved(f"`{owner}` {self.absent[owner]}", None)
        if found is None:
            services = {draft.service for draft in self.drafts.values()}
            raise Unresolved(f"there is no service `{owner}`", None, *did_you_mean(owner, sorted(services)))
        return found

    def url(self, draft: Draft) -> str | None:
        """The URL of a process: what it says, else that of its port for HTTP. Raises `Unresolved`."""
        node = draft.node.get("url")
        if draft.model.url is not None and node is not None:
            with self._opened((draft.name, "url"), f"services.{draft.name}.url", node):
                return self.expand(node, draft.model.url, draft)
        for name in ("http", IMPLICIT_PORT):
            if name in draft.ports:
                return f"http://127.0.0.1:{draft.ports[name]}/"
        return None

    def variable(self, draft: Draft | None, name: str, below: int | None = None) -> str | None:
        """The value of an environment variable, of the bindings beneath number `below` only if that is given.

        Raises `Unresolved`.
        """
        bindings = (draft.variables if draft else self.variables).get(name, [])
        at = (len(bindings) if below is None else below) - 1
        if at < 0:
            return self.shell.get(name)
        binding = bindings[at]
        if binding.node is None or binding.value is None:
            return binding.value
        with self._opened(("env", name, str(at)), f"env.{name}", binding.node):
            lookup = partial(self.lookup, draft, inside=(name, at))
            return self._expand(binding.node, binding.value, lookup)

    @contextmanager
    def _opened(self, key: tuple[str, ...], label: str, node: Node) -> Iterator[None]:
        keys = [entry[0] for entry in self._open]
        if key in keys:
            raise _circle(self._open[keys.index(key) :])
        if len(keys) >= MAX_CHAIN:
            raise Misplaced(Unresolved(f"more than {MAX_CHAIN} values refer to one another in a row", ""), node)
        self._open.append((key, label, node))
        try:
            yield
        finally:
            self._open.pop()

    def _unknown(self, draft: Draft | None, name: str) -> Unresolved:
        known = [*NAMES, *(f"port.{port}" for port in (draft.ports if draft else ()))]
        known += [f"services.{owner}.url" for owner in self.drafts]
        if (near := nearest(name, known)) is not None:
            return Unresolved(f"unknown name `{name}`", None, f"did you mean `${{{near}}}`?")
        if re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
            help = f"`${{env.{name}}}` is the environment variable; `$${{{name}}}` is left for the program"
            return Unresolved(f"unknown name `{name}`", None, help)
        return Unresolved(f"unknown name `{name}`", None, "known: " + ", ".join((*NAMES, *PATTERNS)))


def _port(draft: Draft, name: str) -> str:
    if not name and draft.ports:
        return str(next(iter(draft.ports.values())))
    if name in draft.ports:
        return str(draft.ports[name])
    if not name:
        raise Unresolved(f"`{draft.service}` has no port", None, f"give [services.{draft.service}] `ports`")
    raise Unresolved(f"`{draft.service}` has no port `{name}`", None, *did_you_mean(name, draft.ports))


def _circle(entries: list[tuple[tuple[str, ...], str, Node]]) -> Misplaced:
    """The error of templates that refer to one another, told from the same one whichever was read first."""
    first = min(range(len(entries)), key=lambda index: entries[index][1])
    entries = entries[first:] + entries[:first]
    labels = [label for _, label, _ in entries]
    path = " -> ".join([*labels, labels[0]])
    return Misplaced(Unresolved(f"`{labels[0]}` refers to itself: {path}", ""), entries[0][2])
