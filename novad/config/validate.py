"""What no key can know alone: names that must exist, circles, keys that exclude one another.

Pure: it looks at the model and the tree, never at the machine. Each check yields its faults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from novad.config.fields import LIMITS
from novad.config.model import Service
from novad.config.report import Fault
from novad.config.suggest import did_you_mean
from novad.config.tree import Node
from novad.core.spec import Condition, Dependency

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
MAX_NAME = 64  # it becomes a file name and a column of a table
VARIABLE = re.compile(r"[^=\0]+")
RESERVED = "all"
NOTHING = 'write for example: [services] web = "python -m http.server ${port}"'
MAX_REPLICAS = 1000
CONDITIONS: tuple[Condition, ...] = ("started", "ready", "done")


@dataclass(frozen=True)
class Declared:
    """A service as it was declared, defaults merged in; `processes` are the names of its replicas."""

    name: str
    model: Service
    node: Node
    processes: tuple[str, ...]


@dataclass(frozen=True)
class Declarations:
    """All services and groups. `skipped` are services that the profile leaves out."""

    services: dict[str, Declared]
    groups: dict[str, Node]
    skipped: frozenset[str] = frozenset()

    def owner(self, target: str) -> Declared | None:
        """The service that `target`, the name of a service or of a process, belongs to."""
        if target in self.services:
            return self.services[target]
        return next((service for service in self.services.values() if target in service.processes), None)

    def names(self) -> list[str]:
        return list(self.services)


def check(declared: Declarations) -> Iterator[Fault]:
    """Every fault of the declarations."""
    yield from _names(declared)
    yield from _groups(declared)
    for service in declared.services.values():
        for one in PER_SERVICE:
            yield from one(service)
        yield from _after(service, declared)
        yield from _restart_with(service, declared)
    yield from _circles(declared, "after", "waits for")
    yield from _circles(declared, "restart_with", "restarts with")


def nothing_to_run(declared: Declarations) -> Iterator[Fault]:
    """The fault of a configuration without services; worth a word only where nothing else is wrong."""
    if not declared.services and not declared.skipped:
        yield Fault("there is nothing to run: no file names a service", help=(NOTHING,))


def command_line(overrides: Mapping[str, str], scale: Mapping[str, int]) -> Iterator[Fault]:
    """The faults of `-e NAME=VALUE` and `--scale SERVICE=N`."""
    for name, value in overrides.items():
        if name.startswith("NOVAD_"):
            yield Fault(f"-e {name}: it is set by novad", help=("choose a name without NOVAD_",))
        elif not VARIABLE.fullmatch(name) or "\0" in value:
            yield Fault(f"-e {name}: not an environment variable")
    for name, count in scale.items():
        if not 0 <= count <= MAX_REPLICAS:
            yield Fault(f"--scale {name}={count}: expected a number from 0 to {MAX_REPLICAS}")


def _names(declared: Declarations) -> Iterator[Fault]:
    seen: dict[str, Declared] = {}
    for service in declared.services.values():
        if fault := _bad_name("service", service.name, service.node):
            yield fault
        for process in service.processes:
            if process in seen:
                yield service.node.origin.fault(
                    f"two processes would be called `{process}`",
                    f"[services.{seen[process].name}] at {seen[process].node.origin} has one too",
                    on_key=True,
                )
            seen.setdefault(process, service)


def _bad_name(kind: str, name: str, node: Node) -> Fault | None:
    if name == RESERVED:
        return node.origin.fault(f"a {kind} cannot be called `all`: it stands for everything", on_key=True)
    if NAME.fullmatch(name) and len(name) <= MAX_NAME:
        return None
    fitting = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:MAX_NAME]
    help = (f"for example `{fitting}`",) if fitting else ()
    return node.origin.fault(
        f"a {kind} cannot be called `{name}`: a name begins with a letter or digit and holds only a-z 0-9 . _ -, "
        f"at most {MAX_NAME}",
        *help,
        on_key=True,
    )


def _groups(declared: Declarations) -> Iterator[Fault]:
    for name, group in declared.groups.items():
        if fault := _bad_name("group", name, group):
            yield fault
        if (service := declared.owner(name)) is not None:
            yield group.origin.fault(
                f"`{name}` is both a group and a service",
                f"the service is at {service.node.origin}",
                on_key=True,
            )
        for item in group.value:
            if isinstance(item.value, str) and item.value not in declared.skipped:
                yield from _unknown(item, item.value, f"group `{name}` names", declared)
    for service in declared.services.values():
        for index, name in enumerate(service.model.groups):
            item = service.node.nearest(("groups", index))
            if fault := _bad_name("group", name, item):
                yield fault
            if declared.owner(name) is not None:
                yield item.origin.fault(f"`{name}` is a service, not a group")


def _unknown(item: Node, target: str, what: str, declared: Declarations) -> Iterator[Fault]:
    if declared.owner(target) is not None:
        return
    if target in declared.groups:
        members = ", ".join(f"`{member}`" for member in declared.groups[target].strings())
        yield item.origin.fault(f"{what} `{target}`, which is a group", f"name its services: {members}")
        return
    near = did_you_mean(target, declared.names())
    yield item.origin.fault(f"{what} `{target}`, which is not a service", *near)


def dependencies(service: Declared, declared: Declarations) -> list[tuple[int, Dependency]]:
    """What `service` waits for, with the index in `after`; names that are unknown or skipped are left out."""
    found = []
    for index, entry in enumerate(service.model.after):
        target, _, condition = entry.partition(":")
        owner = declared.owner(target)
        if owner is not None and owner.processes:
            found.append((index, Dependency(target, _condition(condition, owner))))
    return found


def _condition(written: str, target: Declared) -> Condition:
    for condition in CONDITIONS:
        if written == condition:
            return condition
    if target.model.oneshot:
        return "done"
    return "ready" if target.model.ready is not None else "started"


def _after(service: Declared, declared: Declarations) -> Iterator[Fault]:
    for index, entry in enumerate(service.model.after):
        item = service.node.nearest(("after", index))
        target, colon, condition = entry.partition(":")
        if target in declared.skipped:
            continue
        if colon and condition not in CONDITIONS:
            near = did_you_mean(condition, CONDITIONS)
            yield item.origin.fault(f"`{entry}`: a dependency ends in :started, :ready or :done", *near)
        yield from _unknown(item, target, f"`{service.name}` waits for", declared)
        owner = declared.owner(target)
        if owner and condition == "done" and not owner.model.oneshot and owner.model.restart == "always":
            yield item.origin.fault(
                f"`{service.name}` waits until `{target}` is done, but it is restarted always",
                f'use "{target}:ready", or give [services.{owner.name}] `oneshot = true`',
            )


def _restart_with(service: Declared, declared: Declarations) -> Iterator[Fault]:
    for index, target in enumerate(service.model.restart_with):
        item = service.node.nearest(("restart_with", index))
        if target in declared.skipped:
            continue
        yield from _unknown(item, target, f"`{service.name}` restarts with", declared)


def _circles(declared: Declarations, key: str, verb: str) -> Iterator[Fault]:
    """One fault for each circle of `key`, shown as a path and pointing at the entry that closes it."""
    edges = {
        service.name: [
            (index, owner.name)
            for index, entry in enumerate(getattr(service.model, key))
            if (owner := declared.owner(entry.partition(":")[0])) is not None
        ]
        for service in declared.services.values()
    }
    done: set[str] = set()
    for start in edges:
        trail: list[str] = []
        pending = [(start, iter(edges[start]))]
        while pending:
            name, targets = pending[-1]
            if len(trail) < len(pending):
                trail.append(name)
            index, target = next(targets, (0, ""))
            if not target:
                pending.pop()
                trail.pop()
                done.add(name)
            elif target in trail:
                path = " -> ".join([*trail[trail.index(target) :], target])
                item = declared.services[name].node.nearest((key, index))
                yield item.origin.fault(f"`{target}` {verb} itself: {path}")
            elif target not in done:
                pending.append((target, iter(edges[target])))


def _program(service: Declared) -> Iterator[Fault]:
    model, node = service.model, service.node
    if model.command is None and model.python is None:
        help = f'[services.{service.name}] needs `command = "..."` or `python = "module"`'
        yield node.origin.fault(f"`{service.name}` has nothing to run", help, on_key=True)
    if model.command is not None and model.python is not None:
        yield node.nearest(("python",)).origin.fault(
            f"`{service.name}` has both `command` and `python`",
            f"`command` is at {node.nearest(('command',)).origin}; one of them must go",
            on_key=True,
        )
    if model.args and model.python is None:
        help = "add them to `command`"
        yield node.nearest(("args",)).origin.fault("`args` belong to a `python` service", help, on_key=True)
    if model.shell and not isinstance(model.command, str):
        yield node.nearest(("shell",)).origin.fault(
            "`shell = true` needs a `command` that is one string", on_key=True
        )


def _probes(service: Declared) -> Iterator[Fault]:
    ready, health = service.model.ready, service.model.health
    if ready is not None:
        at = service.node.nearest(("ready",)).origin
        if not any((ready.notify, ready.notify_fd, ready.http, ready.tcp, ready.exec, ready.log)):
            yield at.fault(
                "`ready` names nothing to wait for", "one or more of: notify, notify_fd, http, tcp, exec, log"
            )
        if "status" in ready.model_fields_set and ready.http is None:
            yield service.node.nearest(("ready", "status")).origin.fault(
                "`status` belongs to `http`", on_key=True
            )
    if health is not None:
        at = service.node.nearest(("health",)).origin
        if not any((health.http, health.tcp, health.exec)):
            yield at.fault("`health` names nothing to check", "one or more of: http, tcp, exec")
        if "status" in health.model_fields_set and health.http is None:
            yield service.node.nearest(("health", "status")).origin.fault(
                "`status` belongs to `http`", on_key=True
            )


def _restarts(service: Declared) -> Iterator[Fault]:
    model = service.model
    if model.oneshot and model.restart == "always":
        yield service.node.nearest(("restart",)).origin.fault(
            "a one-shot cannot restart always: it would never be done", 'use "no" or "on-failure"'
        )
    if model.backoff.min > model.backoff.max:
        at = service.node.get("backoff", "min") or service.node.nearest(("backoff", "max"))
        yield at.origin.fault(f"`backoff.min` ({model.backoff.min:g} s) is above `max` ({model.backoff.max:g} s)")


def _ports(service: Declared) -> Iterator[Fault]:
    model = service.model
    for name, wish in model.ports.items():
        at = service.node.nearest(("ports", name)).origin
        if wish.isdigit() and len(service.processes) > 1:
            count = len(service.processes)
            yield at.fault(
                f"{count} replicas of `{service.name}` cannot share port {wish}", f'use "{wish}+" or "auto"'
            )
        if not re.fullmatch(r"[A-Za-z_][\w-]*", name):
            yield at.fault(f"a port cannot be called `{name}`: a name begins with a letter", on_key=True)
    if isinstance(model.listen, list):
        for index, name in enumerate(model.listen):
            if name not in model.ports:
                item = service.node.nearest(("listen", index))
                yield item.origin.fault(f"`listen`: there is no port `{name}`", *did_you_mean(name, model.ports))


def _limits(service: Declared) -> Iterator[Fault]:
    for name in service.model.limits:
        if name not in LIMITS:
            at = service.node.nearest(("limits", name)).origin
            yield at.fault(f"unknown limit `{name}`", *did_you_mean(name, LIMITS), on_key=True)


def variables(table: Node | None) -> Iterator[Fault]:
    """The faults of the names in an `env` table."""
    for name, node in (table.table() if table else {}).items():
        if name.startswith("NOVAD_"):
            yield node.origin.fault(f"`{name}` is set by novad", "choose a name without NOVAD_", on_key=True)
        elif not VARIABLE.fullmatch(name):
            yield node.origin.fault(f"an environment variable cannot be called `{name}`", on_key=True)


PER_SERVICE: tuple[Callable[[Declared], Iterable[Fault]], ...] = (
    _program,
    _probes,
    _restarts,
    _ports,
    _limits,
    lambda service: variables(service.node.get("env")),
)


def requires(node: Node, wanted: str, version: str) -> Iterator[Fault]:
    """The fault of a novad `version` that `novad.requires` does not allow."""
    for part in wanted.split(","):
        match = re.fullmatch(r"\s*(>=|<=|==|!=|>|<)\s*([0-9]+(?:\.[0-9]+)*)\s*", part)
        if match is None:
            yield node.origin.fault(
                f"novad.requires: `{part.strip()}` is not a version condition", 'as in ">=1.0,<2"'
            )
        elif not _allows(match[1], _numbers(version), _numbers(match[2])):
            yield node.origin.fault(f"this project needs novad {wanted}, and this is {version}")
            return


def _numbers(version: str) -> tuple[int, ...]:
    numbers = tuple(int(digits) for digits in re.findall(r"(?:^|\.)([0-9]+)", version))
    return (*numbers, 0, 0, 0, 0)[:4]


def _allows(operator: str, have: tuple[int, ...], want: tuple[int, ...]) -> bool:
    match operator:
        case ">=":
            return have >= want
        case "<=":
            return have <= want
        case "==":
            return have == want
        case "!=":
            return have != want
        case ">":
            return have > want
        case _:
            return have < want
