"""The environment variables of a process and the order in which they are laid over one another.

From low to high: the shell that ran novad, [env], the project's env_files, [defaults] env, the service's
env_files, its env; then the same from nova.local.toml, then from the profile, then -e on the command line. A
value may build on the one below it: `PATH = "${dir}/bin:${env.PATH}"`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from novad.config.tree import BASE, Node


@dataclass(frozen=True, slots=True)
class Binding:
    """One value of a variable: None removes it. `node` is set where the value is a template to expand."""

    value: str | None
    origin: str
    node: Node | None = None


Variables = dict[str, list[Binding]]
"""The bindings of each variable, from low to high, without the shell's."""


# What a service manager above novad told its own child; a service of ours must not take it for its own.
FOREIGN = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID")


def of_shell(environ: Mapping[str, str]) -> dict[str, str]:
    """What every process starts from: the shell's environment without what was meant for novad alone."""
    shell = {"PYTHONUNBUFFERED": "1"}
    shell |= {key: value for key, value in environ.items() if not key.startswith("NOVAD_") and key not in FOREIGN}
    return shell


@dataclass(frozen=True, slots=True)
class FileVariables:
    """Variables of one environment file: name to value and origin."""

    values: dict[str, tuple[str, str]]


def variables(tables: Iterable[Node | FileVariables | None], overrides: Mapping[str, str]) -> Variables:
    """The bindings of `tables`, given from low to high within a layer, and of -e."""
    ranked: list[tuple[int, int, str, Binding]] = []
    for level, table in enumerate(tables):
        if isinstance(table, FileVariables):
            for name, (value, origin) in table.values.items():
                ranked.append((BASE.rank, level, name, Binding(value, origin)))
        elif table is not None:
            ranked += _of_table(table, level)
    ranked.sort(key=lambda item: item[:2])
    found: Variables = {}
    for _, _, name, binding in ranked:
        found.setdefault(name, []).append(binding)
    for name, value in overrides.items():
        found.setdefault(name, []).append(Binding(value, "-e"))
    return found


def _of_table(table: Node, level: int) -> Iterable[tuple[int, int, str, Binding]]:
    for name, newest in table.table().items():
        node: Node | None = newest
        while node is not None:
            if not isinstance(node.value, (dict, list)):
                yield node.origin.layer.rank, level, name, _binding(node)
            node = node.under


def _binding(node: Node) -> Binding:
    if node.value is False:
        return Binding(None, str(node.origin))
    if isinstance(node.value, str):
        return Binding(node.value, str(node.origin), node)
    return Binding(str(node.value), str(node.origin))
