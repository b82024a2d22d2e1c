"""What a process is made of, and where each part was written: `novad check --show NAME`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import NamedTuple

from novad.config.load import Compiled
from novad.config.position import Path
from novad.config.suggest import did_you_mean
from novad.config.tree import Node
from novad.core.errors import NoSuchService
from novad.core.spec import Probe, ProcessSpec

DEFAULT = "default"
ENVIRONMENT = "environment"


class Row(NamedTuple):
    """A key as in nova.toml, its final value, and its origin.

    The origin is `nova.toml:12`, `profile ci, nova.toml:90`, `.env:3`, `-e`, `environment` (the shell's) or
    `default`.
    """

    key: str
    value: str
    origin: str


def show(compiled: Compiled, name: str) -> list[Row]:
    """Everything about a process, or about the first of a service. Raises `NoSuchService`."""
    processes = compiled.cluster.processes
    found = next((process for process in processes if name in (process.name, process.service)), None)
    if found is None:
        known = [process.service for process in processes]
        raise NoSuchService(f"there is no service `{name}`", *did_you_mean(name, dict.fromkeys(known)))
    node = compiled.drafts[found.name].node
    return [*_settings(found, node), *_environment(compiled, found)]


def _settings(process: ProcessSpec, node: Node) -> Iterator[Row]:
    program = ("python",) if node.get("python") else ("command",)
    yield Row("command", shlex.join(process.argv), _origin(node, program))
    yield Row("cwd", process.cwd, _origin(node, ("cwd",)))
    for key, value in SETTINGS:
        yield Row(key, value(process), _origin(node, tuple(key.split("."))))
    if process.groups:
        yield Row("groups", ", ".join(process.groups), _origin(node, ("groups",), "[groups]"))
    yield from _probe("ready", process.ready, node)
    yield from _probe("health", process.health.probe if process.health else None, node)
    for name, port in process.ports.items():
        text = f"{port.number}{', passed as a socket' if port.listen else ''}"
        yield Row(f"ports.{name}", text, _origin(node, ("ports", name)))
    for name, limit in process.limits.items():
        yield Row(f"limits.{name}", str(limit) if limit >= 0 else "unlimited", _origin(node, ("limits", name)))
    for key, text in (("url", process.url or ""), ("description", process.description)):
        if text:
            yield Row(key, text, _origin(node, (key,)))
    yield Row("log", process.log.path, DEFAULT)


def _origin(node: Node, path: Path, otherwise: str = DEFAULT) -> str:
    found = node.get(*path)
    return str(found.origin) if found is not None else otherwise


def _seconds(value: float) -> str:
    return f"{value:g}s"


def _flag(value: bool) -> str:
    return "true" if value else "false"


SETTINGS: tuple[tuple[str, Callable[[ProcessSpec], str]], ...] = (
    ("after", lambda p: ", ".join(f"{item.name}:{item.condition}" for item in p.after)),
    ("restart_with", lambda p: ", ".join(p.restart_with)),
    ("ready_timeout", lambda p: _seconds(p.ready_timeout_s)),
    ("ready_after", lambda p: _seconds(p.start_s)),
    ("restart", lambda p: p.restart),
    ("oneshot", lambda p: _flag(p.oneshot)),
    ("autostart", lambda p: _flag(p.autostart)),
    ("backoff.min", lambda p: _seconds(p.backoff.min_s)),
    ("backoff.max", lambda p: _seconds(p.backoff.max_s)),
    ("backoff.reset_after", lambda p: _seconds(p.backoff.reset_after_s)),
    ("give_up_after", lambda p: str(p.give_up_after)),
    ("stop.signal", lambda p: p.stop.signal),
    ("stop.timeout", lambda p: _seconds(p.stop.timeout_s)),
    ("signals.reload", lambda p: p.reload_signal),
    ("watch", lambda p: ", ".join(p.watch.globs) if p.watch else ""),
    ("watchdog", lambda p: _seconds(p.watchdog_s) if p.watchdog_s is not None else "off"),
    ("nice", lambda p: str(p.nice)),
    ("pty", lambda p: _flag(p.log.pty)),
    ("logs.attach", lambda p: _flag(p.log.attach)),
    ("logs.max", lambda p: str(p.log.max_bytes)),
    ("logs.keep", lambda p: str(p.log.files)),
    ("logs.drop", lambda p: _flag(p.log.drop)),
)


def _probe(key: str, probe: Probe | None, node: Node) -> Iterator[Row]:
    if probe is None:
        return
    kinds = {
        "notify": "true" if probe.notify else "",
        "http": f"{probe.http.url} {probe.http.status_min}-{probe.http.status_max}" if probe.http else "",
        "tcp": f"{probe.tcp.host}:{probe.tcp.port}" if probe.tcp else "",
        "exec": shlex.join(probe.exec or ()),
        "log": probe.log or "",
    }
    for kind, text in kinds.items():
        if text:
            yield Row(f"{key}.{kind}", text, _origin(node, (key, kind)))


def _environment(compiled: Compiled, process: ProcessSpec) -> Iterator[Row]:
    """The whole environment the process will see, by name; a variable that is removed is shown so."""
    bindings = compiled.drafts[process.name].variables
    for name in sorted({*compiled.cluster.env, *process.env}):
        if name in process.env:
            value = process.env[name]
            text = "(removed)" if value is None else value
            yield Row(f"env.{name}", text, bindings[name][-1].origin)
        else:
            is_ours = name not in compiled.request.environ
            yield Row(f"env.{name}", compiled.cluster.env[name], DEFAULT if is_ours else ENVIRONMENT)
