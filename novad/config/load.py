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
from novad.config import reading, validate
from novad.config.build import Builder
from novad.config.drafting import draft_processes, read_project
from novad.config.environment import variables
from novad.config.files import Files, read
from novad.config.interpolate import Lookup
from novad.config.layers import Assembled, assemble
from novad.config.report import ConfigFaults, Fault
from novad.config.request import Request
from novad.config.standin import stand_in
from novad.config.suggest import did_you_mean
from novad.config.tree import Node, merge
from novad.config.validate import Declarations, Declared
from novad.config.world import Draft, World
from novad.core import spec, texts
from novad.core.errors import NoSuchService

# A stand-in is accepted the first time; a table inside a wrong table may take a second look.
MAX_ROUNDS = 4


@dataclass(frozen=True)
class Compiled:
    """A cluster together with what it was made from, for those who ask where a value came from."""

    cluster: spec.Cluster
    request: Request
    drafts: Mapping[str, Draft]
    services: tuple[str, ...] = ()


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
    taken_scale: Mapping[str, int] | None = None,
    use_local: bool = True,
    python: str = sys.executable,
    is_isolated: bool = False,
) -> spec.Cluster:
    """The cluster that `config`, the real path of a nova.toml, describes.

    `overrides` are the `-e K=V`, `scale` the replicas by service; `taken_ports`, numbers by `process.port`, and
    `taken_scale` are what a running daemon already has and what therefore stays. Without `profile`, NOVAD_PROFILE of
    `environ` counts; NOVAD_LOCAL=0 is as `use_local=False`, NOVAD_PRELOAD=0 as an empty `preload`. `python`
    runs `python = "..."` services. `is_isolated` picks free ports in place of fixed ones that do not end in `!`.

    Raises `ConfigFaults` with every fault that was found; where there is none, `NoSuchService` for a `scale` of
    what is no service.
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
        taken_scale=taken_scale or {},
        use_local=use_local,
        python=python,
        is_isolated=is_isolated,
    )
    return compile_with_origins(request).cluster


def compile_with_origins(request: Request) -> Compiled:
    """As `compile_cluster`, and the origin of each value with it (see `novad.config.explain`)."""
    compilation = Compilation(request)
    compiled = compilation.run()
    if compilation.faults or compiled is None:
        raise ConfigFaults(_in_order(compilation.faults))
    for name in request.scale.keys() - set(compiled.services):
        hint = " ".join(did_you_mean(name, compiled.services))
        raise NoSuchService(f"--scale {name}: no such service", hint)
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
        project = read_project(request, files, assemble(trees, request.chosen_profile).root)
        settings = partial(request.world(project.variables).lookup, None)
        trees = [self._checked(tree, settings) for tree in trees]
        if not files.is_complete:
            self.faults += files.faults
            return None
        assembled = assemble(trees, request.chosen_profile)
        self.faults += assembled.faults
        declared = self._declared(assembled, settings)
        world, faults = draft_processes(request, files, assembled.root, declared, project)
        self.faults += [*faults, *files.faults]
        return self._compiled(files, assembled.root, declared, world)

    def _checked(self, tree: Node, lookup: Lookup) -> Node:
        """The tree without what the model refuses."""
        for _ in range(MAX_ROUNDS):
            found, faults = reading.read(tree, lookup)
            if found is not None:
                return tree
            self.faults += [fault for _, fault in faults]
            for path, _ in faults:
                tree = stand_in(tree, path)
        return stand_in(tree, ())

    def _declared(self, assembled: Assembled, lookup: Lookup) -> Declarations:
        """The services with their defaults, and what is wrong between them."""
        root = assembled.root
        defaults, table, groups = root.get("defaults"), root.get("services"), root.get("groups")
        services = {}
        for name, node in (table.table() if table else {}).items():
            whole = merge(defaults, node) if defaults is not None else node
            service = reading.read_service(whole, lookup)
            whole = Node(whole.value, node.origin)
            services[name] = Declared(name, service, whole, self._processes(name, service.replicas))
        declared = Declarations(services, groups.table() if groups else {}, assembled.skipped)
        self.faults += validate.command_line(self.request.overrides, self.request.scale)
        self.faults += validate.check(declared)
        self.faults += validate.variables(root.get("env"))
        if not self.faults:
            self.faults += validate.nothing_to_run(declared)
        return declared

    def _processes(self, name: str, replicas: int | None) -> tuple[str, ...]:
        count = self.request.scale.get(name, self.request.taken_scale.get(name, replicas))
        return (name,) if count is None else tuple(f"{name}.{n}" for n in range(1, count + 1))

    def _compiled(self, files: Files, root: Node, declared: Declarations, world: World) -> Compiled:
        request = self.request
        builder = Builder(world, declared, request.dir, request.log_dir, request.python)
        processes = [builder.process(draft) for draft in world.drafts.values()]
        node = root.get("novad")
        novad = reading.read_novad(node, partial(request.world(world.variables).lookup, None))
        call: tuple[str, ...] = ()
        if node is not None and novad.call is not None:
            call = builder.command(node.nearest(("call",)), novad.call, None)
        if node is not None and novad.requires is not None:
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
            files_absent=tuple(files.absent),
            files_globs=tuple(files.globs),
            profile=request.chosen_profile,
            digest=_digest(request, files),
            files_digest=texts.digest(files.texts),
            preload=() if request.environ.get("NOVAD_PRELOAD") == "0" else tuple(novad.preload),
            on_crash="stop" if novad.on_crash == "stop" else "restart",
            secrets=tuple(novad.secrets),
            call=call,
        )
        return Compiled(cluster, request, world.drafts, tuple(declared.names()))


def _groups(declared: Declarations) -> dict[str, tuple[str, ...]]:
    """The members of each group: those it names, then those that name it."""
    members: dict[str, dict[str, None]] = {}
    for name, group in declared.groups.items():
        members[name] = {member: None for member in group.strings() if declared.owner(member) is not None}
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
        f"{sorted({**request.taken_scale, **request.scale}.items())}",
    ]
    for path, text in files.texts.items():
        parts += [path, text]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
