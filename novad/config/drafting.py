"""From declarations to drafts: each process with its variables and its ports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from novad.config import ports
from novad.config.environment import FileVariables, Variables, variables
from novad.config.files import Files, environment_file
from novad.config.interpolate import Lookup, Unresolved, expand, names
from novad.config.report import Fault
from novad.config.request import Request
from novad.config.tree import Node
from novad.config.validate import Declarations, Declared
from novad.config.world import IMPLICIT_PORT, Draft, World


@dataclass(frozen=True)
class Project:
    """The variables that are the same for every service: all of them, and those of the project's files alone."""

    variables: Variables
    files: FileVariables


def read_project(request: Request, files: Files, root: Node) -> Project:
    """The variables of [env] and of the project's environment files."""
    before_files = variables([root.get("env")], request.overrides)
    lookup = partial(request.world(before_files).lookup, None)
    found = read_env_files(files, root.get("novad", "env_files"), lookup)
    return Project(variables([root.get("env"), found], request.overrides), found)


def read_env_files(files: Files, listed: Node | None, lookup: Lookup) -> FileVariables:
    """The variables of the environment files that `env_files` lists, the later file winning."""
    values: dict[str, tuple[str, str]] = {}
    for item in listed.value if listed and isinstance(listed.value, list) else ():
        if not isinstance(item.value, str):
            continue
        try:
            name = expand(item.value, lookup)
        except Unresolved:
            continue  # the model reads the same text with the same names, and reports it
        for key, (value, source, span) in environment_file(files, item, name).items():
            values[key] = (value, f"{source.shown}:{source.locate(span.start)[0]}")
    return FileVariables(values)


def draft_processes(
    request: Request, files: Files, root: Node, declared: Declarations, project: Project
) -> tuple[World, list[Fault]]:
    """Every process of the cluster in a world where their names mean something."""
    world = request.world(project.variables)
    world.absent = dict.fromkeys(declared.skipped, f"is left out by the profile `{request.chosen_profile}`")
    for service in declared.services.values():
        if not service.processes:
            world.absent[service.name] = "has no replicas"
        bindings = _variables(request, files, root, service, project)
        for n, name in enumerate(service.processes, 1):
            world.add(Draft(name, service.name, n, service.model, service.node, bindings))
    return world, list(_choose_ports(request, world, root))


def _variables(request: Request, files: Files, root: Node, service: Declared, project: Project) -> Variables:
    lookup = partial(request.world(project.variables).lookup, None)
    own_files = read_env_files(files, service.node.get("env_files"), lookup)
    own = root.get("services", service.name, "env")
    tables = [root.get("env"), project.files, root.get("defaults", "env"), own_files, own]
    return variables(tables, request.overrides)


def _choose_ports(request: Request, world: World, root: Node) -> Iterator[Fault]:
    """Gives every draft its ports; yields the faults of wishes that cannot be met."""
    wishes: list[ports.Wish] = []
    for draft in world.drafts.values():
        wanted = dict(draft.model.ports)
        if not wanted and _uses_a_port(draft, root):
            wanted[IMPLICIT_PORT] = "auto"
        if request.is_isolated:
            wanted = {name: ports.isolated(text) for name, text in wanted.items()}
        wishes += [ports.Wish(draft.name, name, text, draft.n) for name, text in wanted.items()]
    seed = f"{request.config}\0{request.namespace}"
    numbers, clashes = ports.choose(wishes, request.taken_ports, seed)
    for wish in wishes:
        world.drafts[wish.process].ports[wish.port] = numbers.get(wish.key, 0)
    for clash in clashes:
        yield from _clash(clash, world)


def _uses_a_port(draft: Draft, root: Node) -> bool:
    """Whether a service without `ports` needs one: it says `${port}` or gives a path to probe."""
    environment = root.get("env")
    texts = [*draft.node.strings(), *(environment.strings() if environment else ())]
    if any("${port}" in text and "port" in names(text) for text in texts):
        return True
    probes = (draft.model.ready, draft.model.health)
    return any(probe.http.startswith("/") for probe in probes if probe is not None and probe.http)


def _clash(clash: ports.Clash, world: World) -> Iterator[Fault]:
    wish, draft = clash.wish, world.drafts[clash.wish.process]
    at = draft.node.nearest(("ports", wish.port)).origin
    where = f"services.{draft.service}.ports.{wish.port}"
    if wish.number > 65535:
        yield at.fault(f"{where}: replica {draft.n} would get port {wish.number}; 65535 is the last")
    elif clash.other is None:
        yield at.fault(f"{where}: no port between {ports.FIRST} and {ports.LAST} is free")
    else:
        other = world.drafts[clash.other.process]
        theirs = other.node.nearest(("ports", clash.other.port)).origin
        # Replicas that share one fixed number are reported as such.
        if theirs is not at:
            help = f'{theirs} has it; "auto" picks a free one'
            yield at.fault(f"{where}: port {wish.number} is taken by `{other.name}`", help)
