"""Reading a request: its arguments with their types, and the processes that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from novad.core import wire
from novad.core.errors import UsageError
from novad.core.select import select
from novad.core.spec import MAX_NUMBER

if TYPE_CHECKING:
    from novad.daemon.loop import Daemon

# Each name is looked for among all processes while every other client waits.
MAX_NAMES = 4096
MAX_NAME = 256


def argument(request: wire.Request, name: str, kind: type | tuple[type, ...], default: Any) -> Any:
    """One argument, or `default` where it is not given. Raises `UsageError` for another type."""
    value = request.args.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UsageError(f"{request.verb}: {name} has the wrong type: {value!r:.80}")
    if isinstance(value, (int, float)) and abs(value) > MAX_NUMBER:
        raise UsageError(f"{request.verb}: {name} is too large")
    return value


def selected(daemon: Daemon, request: wire.Request) -> list[str]:
    """The processes that `names` means. Raises `UsageError`, `NoSuchService`."""
    patterns = argument(request, "names", list, [])
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise UsageError(f"{request.verb}: names must be strings")
    if len(patterns) > MAX_NAMES or any(len(pattern) > MAX_NAME for pattern in patterns):
        raise UsageError(f"{request.verb}: at most {MAX_NAMES} names of at most {MAX_NAME} letters")
    supervisor = daemon.supervisor
    specs = {name: process.spec for name, process in supervisor.processes.items()}
    groups = supervisor.cluster.groups if supervisor.cluster else {}
    return select(patterns, specs, groups)
