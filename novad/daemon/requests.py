"""Reading a request: its arguments with their types, and the processes that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from novad.core import wire
from novad.core.errors import UsageError
from novad.core.select import select

if TYPE_CHECKING:
    from novad.daemon.loop import Daemon


def argument(request: wire.Request, name: str, kind: type | tuple[type, ...], default: Any) -> Any:
    """One argument, or `default` where it is not given. Raises `UsageError` for another type."""
    value = request.args.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UsageError(f"{request.verb}: {name} has the wrong type: {value!r:.80}")
    return value


def selected(daemon: Daemon, request: wire.Request) -> list[str]:
    """The processes that `names` means. Raises `UsageError`, `NoSuchService`."""
    patterns = argument(request, "names", list, [])
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise UsageError(f"{request.verb}: names must be strings")
    supervisor = daemon.supervisor
    specs = {name: process.spec for name, process in supervisor.processes.items()}
    groups = supervisor.cluster.groups if supervisor.cluster else {}
    return select(patterns, specs, groups)
