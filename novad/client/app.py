"""What every verb gets: the global options, the terminal, the project and a link to its daemon.

One `App` lives for one command (one line, in the shell). The configuration compiler lies on a floor that the
client does not import; whoever builds the `App` hands it in.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from novad.client.link import Link, connect
from novad.client.private import replace_file
from novad.client.project import find_place
from novad.client.terminal import Terminal
from novad.core.errors import NotRunning
from novad.core.place import Place
from novad.core.wire import Request

if TYPE_CHECKING:
    from novad.core.spec import Cluster

SCHEMA = 1


class Compiler(Protocol):
    """The configuration compiler as the verbs use it; every method raises `ConfigError`."""

    def compile(
        self,
        place: Place,
        *,
        profile: str | None,
        overrides: dict[str, str],
        taken_ports: dict[str, int],
        scale: dict[str, int],
        taken_scale: dict[str, int] | None = None,
        environ: Mapping[str, str],
        is_isolated: bool = False,
    ) -> Cluster: ...

    def show(
        self,
        place: Place,
        name: str,
        *,
        profile: str | None,
        taken_ports: dict[str, int],
        environ: Mapping[str, str],
    ) -> list[tuple[str, str, str]]: ...

    def explain(self, key: str) -> str: ...

    def schema(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Options:
    """The global options."""

    directory: str | None = None
    file: str | None = None
    namespace: str | None = None
    profile: str | None = None
    color: str = "auto"
    json: bool = False
    quiet: bool = False
    verbose: bool = False


@dataclass
class App:
    """`runner` runs another command line (a line of the shell, the `:` key) with an app of its own."""

    options: Options
    compiler: Compiler
    runner: Callable[[list[str], App], int]
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    depth: int = 0

    def set_option(self, name: str, value: Any) -> None:
        self.options = replace(self.options, **{name: value})

    @cached_property
    def terminal(self) -> Terminal:
        return Terminal(self.options.color, self.options.quiet, self.environ)

    @property
    def profile(self) -> str | None:
        return self.options.profile or self.environ.get("NOVAD_PROFILE") or None

    def place(self, *, missing_ok: bool = True) -> Place:
        options = self.options
        return find_place(self.environ, options.directory, options.file, options.namespace, missing_ok=missing_ok)

    def link(self) -> Link:
        """A link to the running daemon, or to a new one if it was killed. Raises `NotRunning`."""
        place = self.place()
        try:
            return connect(place, self.trace)
        except NotRunning:
            from novad.client.launch import connect_or_revive

            return connect_or_revive(place, self.trace)

    def link_at_once(self) -> Link:
        """A link to a daemon that answers now; nothing is started. Raises `NotRunning`."""
        return connect(self.place(), self.trace)

    def link_or_none(self) -> Link | None:
        try:
            return self.link()
        except NotRunning:
            return None

    def link_or_launch(self) -> tuple[Link, bool]:
        """A link, and whether the daemon was started for it."""
        from novad.client.launch import connect_or_launch

        return connect_or_launch(self.place(missing_ok=False), self.trace)

    def trace(self, request: Request) -> None:
        """`-v` shows what goes over the socket, which teaches the protocol."""
        if self.options.verbose:
            # The cluster holds the whole environment, secrets among it.
            args = json.dumps({key: "..." if key == "cluster" else value for key, value in request.args.items()})
            shown = args if len(args) <= 400 else f"{args[:400]}… ({len(args)} bytes)"
            self.terminal.err(f"→ {request.verb} {shown}")

    def print_json(self, document: Mapping[str, Any]) -> None:
        """One document; `schema` comes first."""
        shown = {"schema": SCHEMA, **{key: value for key, value in document.items() if key != "schema"}}
        indent = 2 if self.terminal.out_is_terminal else None
        self.terminal.out(json.dumps(shown, indent=indent, ensure_ascii=False))

    def config_name(self) -> str:
        """The configuration file as the user would type it here."""
        config = self.place().config
        try:
            here = str(Path.cwd())
        except FileNotFoundError:
            return config
        return os.path.relpath(config, here) if config.startswith(here + "/") else config

    def command_name(self) -> str:
        """How hints spell this program: with the options that lead to the same cluster."""
        parts = ["novad"]
        for flag, value in (("-C", self.options.directory), ("-f", self.options.file)):
            if value:
                parts += [flag, value]
        if self.options.namespace:
            parts += ["--namespace", self.options.namespace]
        return " ".join(parts)


def write_names(place: Place, processes: list[dict[str, Any]]) -> None:
    """Remembers the names for completion while no daemon runs; that it cannot is no reason to fail."""
    names = sorted({process["name"] for process in processes} | {process["service"] for process in processes})
    with contextlib.suppress(OSError):
        replace_file(Path(place.state_dir, "names"), "".join(f"{name}\n" for name in names))


def read_names(place: Place) -> list[str]:
    try:
        return Path(place.state_dir, "names").read_text().split()
    except OSError:
        return []
