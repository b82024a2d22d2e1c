"""Compiling nova.toml: from files and the environment to the cluster that a daemon runs.

The order is: read every file, learn the environment, check each file against the model, lay the files over one
another, check what hangs together, choose ports, expand every text. Faults are collected on the way and raised
together at the end; what is at fault is replaced by a harmless stand-in so that it does not cause further ones.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from novad import __version__
from novad.config import model, ports, validate
from novad.config.build import Builder
from novad.config.environment import FileVariables, Variables, of_shell, variables
from novad.config.files import Files, environment_file, read
from novad.config.interpolate import Lookup, Unresolved, expand, names
from novad.config.layers import Assembled, assemble
from novad.config.report import ConfigFaults, Fault
from novad.config.standin import stand_in
from novad.config.tree import Node, merge
from novad.config.validate import Declarations, Declared
from novad.config.world import IMPLICIT_PORT, Draft, World
from novad.core import spec

# A stand-in is accepted the first time; a table inside a wrong table may take a second look.
MAX_ROUNDS = 4


@dataclass(frozen=True)
class Request:
    """What a compilation depends on besides the files; see `compile_cluster`."""

    config: str
    namespace: str
    environ: Mapping[str, str]
    run_dir: str
    state_dir: str
    log_dir: str
    profile: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    taken_ports: Mapping[str, int] = field(default_factory=dict)
    scale: Mapping[str, int] = field(default_factory=dict)
    use_local: bool = True
    python: str = sys.executable

    @property
    def dir(self) -> str:
        return os.path.dirname(self.config)

    @property
    def chosen_profile(self) -> str:
        return self.profile or self.environ.get("NOVAD_PROFILE", "")

    @property
    def reads_local(self) -> bool:
        return self.use_local and self.environ.get("NOVAD_LOCAL") != "0"

    def world(self, variables: Variables) -> World:
        """The names that are known before there are processes."""
        fixed = {"dir": self.dir, "run_dir": self.run_dir, "namespace": self.namespace}
        return World(fixed, of_shell(self.environ), variables)


@dataclass(frozen=True)
class Compiled:
    """A cluster together with what it was made from, for those who ask where a value came from."""

    cluster: spec.Cluster
    request: Request
    drafts: Mapping[str, Draft]


def compile_cluster(
    config: str,
    *,
    namespace: str,
    profile: str | None,
    overrides: Mapping[str, str],
    environ: Mapping[str, str],
    run_dir: str,
    state_dir: str,
    log_dir: str,
    taken_ports: Mapping[str, int],
    scale: Mapping[str, int],
    use_local: bool = True,
    python: str = sys.executable,
) -> spec.Cluster:
    """The cluster that `config`, the real path of a nova.toml, describes.

    `overrides` are the `-e K=V`, `scale` the replicas by service, `taken_ports` numbers by `process.port` that a
    running daemon already gave and that therefore stay. Without `profile`, NOVAD_PROFILE of `environ` counts;
    NOVAD_LOCAL=0 is as `use_local=False`. `python` runs `python = "..."` services.

    Raises `ConfigFaults` with every fault that was found.
    """
    request = Request(
        config=config,
        namespace=namespace,
        environ=environ,
        run_dir=run_dir,
        state_dir=state_dir,
        log_dir=log_dir,
        profile=profile,
        overrides=overrides,
        taken_ports=taken_ports,
        scale=scale,
        use_local=use_local,
        python=python,
    )
    return compile_with_origins(request).cluster


def compile_with_origins(request: Request) -> Compiled:
    """As `compile_cluster`, and the origin of each value with it (see `novad.config.explain`)."""
    compilation = Compilation(request)
    compiled = compilation.run()
    if compilation.faults or compiled is None:
        raise ConfigFaults(_in_order(compilation.faults))
    return compiled


def _in_order(faults: Iterable[Fault]) -> list[Fault]:
    """By file and place, each once: a value that several processes use is wrong once."""
    unique = {(fault.message, fault.source and fault.source.path, fault.span): fault for fault in faults}
    files = list(dict.fromkeys(fault.source.path for fault in unique.values() if fault.source))
    return sorted(
        unique.values(),
        key=lambda fault: (files.index(fault.source.path) if fault.source else -1, fault.span or (0, 0)),
    )


@dataclass
class Compilation:
    """One run of the compiler; the faults of all its steps."""

    request: Request
    faults: list[Fault] = field(default_factory=list)

    def run(self) -> Compiled | None:
        """The cluster; None where so much is wrong that the rest cannot be looked at."""
        request = self.request
        first = request.world(variables([], request.overrides))
        files, trees = read(request.config, partial(first.lookup, None), request.reads_local)
        env_files, project = self._project(files, trees)
        settings = partial(request.world(project).lookup, None)
        trees = [self._checked(tree, settings) for tree in trees]
        self.faults += files.faults
        if not files.is_complete:
            return None
        assembled = assemble(trees, request.chosen_profile)
        self.faults += assembled.faults
        declared = self._declared(assembled, settings)
        self.faults += validate.check(declared)
        self.faults += validate.variables(assembled.root.get("env"))
        if not self.faults:
            self.faults += validate.nothing_to_run(declared)
        world = self._world(files, assembled.root, declared, env_files, project)
        return self._compiled(files, assembled.root, declared, world)

    def _project(self, files: Files, trees: list[Node]) -> tuple[FileVariables, Variables]:
        """The variables of the project's environment files, and all that are the same for every service."""
        root = assemble(trees, self.request.chosen_profile).root
        overrides = self.request.overrides
        without_files = variables([root.get("env")], overrides)
        lookup = partial(self.request.world(without_files).lookup, None)
        env_files = self._read_env_files(files, root.get("novad", "env_files"), lookup)
        return env_files, variables([root.get("env"), env_files], overrides)

    def _read_env_files(self, files: Files, listed: Node | None, lookup: Lookup) -> FileVariables:
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

    def _checked(self, tree: Node, lookup: Lookup) -> Node:
        """The tree without what the model refuses."""
        for _ in range(MAX_ROUNDS):
            found, faults = model.read(tree, lookup)
            if found is not None:
                return tree
            self.faults += [fault for _, fault in faults]
            for path, _ in faults:
                tree = stand_in(tree, path)
        return stand_in(tree, ())

    def _declared(self, assembled: Assembled, lookup: Lookup) -> Declarations:
        root = assembled.root
        defaults = root.get("defaults")
        services = {}
        table = root.get("services")
        for name, node in (table.table() if table else {}).items():
            whole = merge(defaults, node) if defaults is not None else node
            whole = Node(whole.value, node.origin)
            service = model.read_service(whole, lookup)
            services[name] = Declared(name, service, whole, self._processes(name, service.replicas))
        groups = root.get("groups")
        self.faults += validate.command_line(self.request.overrides, self.request.scale, list(services))
        return Declarations(services, groups.table() if groups else {}, assembled.skipped)

    def _processes(self, name: str, replicas: int | None) -> tuple[str, ...]:
        count = self.request.scale.get(name, replicas)
        return (name,) if count is None else tuple(f"{name}.{n}" for n in range(1, count + 1))

    def _world(
        self, files: Files, root: Node, declared: Declarations, env_files: FileVariables, project: Variables
    ) -> World:
        """Every process with its variables and its ports."""
        request = self.request
        world = request.world(project)
        lookup = partial(request.world(project).lookup, None)
        world.absent = dict.fromkeys(declared.skipped, f"is left out by the profile `{request.chosen_profile}`")
        for service in declared.services.values():
            if not service.processes:
                world.absent[service.name] = "has no replicas"
            own = root.get("services", service.name)
            own_files = self._read_env_files(files, service.node.get("env_files"), lookup)
            tables = [root.get("env"), env_files, root.get("defaults", "env"), own_files, own and own.get("env")]
            bindings = variables(tables, request.overrides)
            for n, name in enumerate(service.processes, 1):
                world.add(Draft(name, service.name, n, service.model, service.node, bindings))
        self.faults += [fault for fault in files.faults if fault not in self.faults]
        self._choose_ports(world, root)
        return world

    def _choose_ports(self, world: World, root: Node) -> None:
        wishes: list[ports.Wish] = []
        for draft in world.drafts.values():
            wanted = dict(draft.model.ports)
            if not wanted and _uses_a_port(draft, root):
                wanted[IMPLICIT_PORT] = "auto"
            wishes += [ports.Wish(draft.name, name, text, draft.n) for name, text in wanted.items()]
        seed = f"{self.request.config}\0{self.request.namespace}"
        numbers, clashes = ports.choose(wishes, self.request.taken_ports, seed)
        for wish in wishes:
            world.drafts[wish.process].ports[wish.port] = numbers.get(wish.key, 0)
        self.faults += [fault for clash in clashes if (fault := _clash(clash, world)) is not None]

    def _compiled(self, files: Files, root: Node, declared: Declarations, world: World) -> Compiled:
        request = self.request
        builder = Builder(world, declared, request.dir, request.log_dir, request.python)
        processes = [builder.process(draft) for draft in world.drafts.values()]
        novad = model.File.model_validate({"novad": {}}).novad
        node = root.get("novad")
        if node is not None:
            lookup = partial(request.world(world.variables).lookup, None)
            novad = model.Novad.model_validate(model.plain(node), context=lookup)
        call: tuple[str, ...] = ()
        if novad.call is not None and node is not None:
            call = builder.command(node.nearest(("call",)), novad.call, None)
        if novad.requires is not None and node is not None:
            self.faults += validate.requires(node.nearest(("requires",)), novad.requires, __version__)
        self.faults += builder.faults
        cluster = spec.Cluster(
            project=novad.name or os.path.basename(request.dir) or "novad",
            namespace=request.namespace,
            config=request.config,
            dir=request.dir,
            run_dir=request.run_dir,
            state_dir=request.state_dir,
            env=dict(world.shell),
            processes=tuple(process for process in processes if process is not None),
            groups=_groups(declared),
            files=tuple(files.texts),
            profile=request.chosen_profile,
            digest=_digest(request, files),
            preload=tuple(novad.preload),
            on_crash="stop" if novad.on_crash == "stop" else "restart",
            call=call,
        )
        return Compiled(cluster, request, world.drafts)


def _uses_a_port(draft: Draft, root: Node) -> bool:
    """Whether a service without `ports` needs one: it says `${port}` or gives a path to probe."""
    environment = root.get("env")
    texts = [*draft.node.strings(), *(environment.strings() if environment else ())]
    if any("${port}" in text and "port" in names(text) for text in texts):
        return True
    probes = (draft.model.ready, draft.model.health)
    return any(probe.http.startswith("/") for probe in probes if probe is not None and probe.http)


def _clash(clash: ports.Clash, world: World) -> Fault | None:
    draft = world.drafts[clash.wish.process]
    at = draft.node.nearest(("ports", clash.wish.port)).origin
    where = f"services.{draft.service}.ports.{clash.wish.port}"
    if clash.wish.number > 65535:
        return at.fault(f"{where}: replica {draft.n} would get port {clash.wish.number}; 65535 is the last")
    if clash.other is None:
        return at.fault(f"{where}: no port between {ports.FIRST} and {ports.LAST} is free")
    other = world.drafts[clash.other.process]
    if other.service == draft.service and clash.other.port == clash.wish.port:
        return None  # replicas that share a fixed number are reported as such
    theirs = other.node.nearest(("ports", clash.other.port)).origin
    return at.fault(
        f"{where}: port {clash.wish.number} is taken by `{clash.other.process}`",
        f'{theirs} has it; "auto" picks a free one',
    )


def _groups(declared: Declarations) -> dict[str, tuple[str, ...]]:
    """The members of each group: those it names, then those that name it."""
    members: dict[str, dict[str, None]] = {}
    for name, group in declared.groups.items():
        named = {member: None for member in group.strings() if declared.owner(member) is not None}
        members[name] = named
    for service in declared.services.values():
        for name in service.model.groups:
            members.setdefault(name, {})[service.name] = None
    return {name: tuple(names) for name, names in members.items()}


def _digest(request: Request, files: Files) -> str:
    """What the configuration was compiled from, the shell's environment left out."""
    parts = [
        request.chosen_profile,
        request.namespace,
        f"{sorted(request.overrides.items())}",
        f"{sorted(request.scale.items())}",
    ]
    for path, text in files.texts.items():
        parts += [path, text]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
