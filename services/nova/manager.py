"""What a person writes to make a service: a class whose public methods are its remote methods.

    class GreetingManager(manager.Manager):
        def greet(self, context, name):
            return f"hello {name}"

A method takes the context first and keyword arguments after it, returns a JSON value, and gives the same result
when it is called directly by another manager, outside any Service. Hooks are optional. Reachable by RPC are
the plain public methods that the class itself (or its own base) defines, and neither hooks nor anything of
`Service`; a class may say otherwise by overriding `rpc_resolve`. A class need not inherit `Manager` at all.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

from nova import context as nova_context
from nova import flags, green
from nova.inflight import Inflight
from nova.periodic import periodic_task, tasks_of

__all__ = [
    "Manager",
    "SchedulerDependentManager",
    "WebManager",
    "idempotent",
    "long_running",
    "periodic_task",
    "public_method",
]

LOG = logging.getLogger(__name__)
FLAGS = flags.FLAGS


def idempotent(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method may run again after the process died in the middle of it."""
    method.rpc_idempotent = True  # type: ignore[attr-defined]
    return method


def long_running(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method may take longer than a broker leaves a message un-acked; it is taken over in the journal."""
    method.rpc_long_running = True  # type: ignore[attr-defined]
    return method


class Manager:
    """Base of all managers. Nothing here does work, so every hook may be overridden without calling this one."""

    def __init__(self, host: str | None = None) -> None:
        self.host = host or FLAGS.host
        self.bind(Inflight(), green.Event())

    def bind(self, inflight: Inflight, stop_asked: green.Event) -> None:
        """Called by the Service that this manager is loaded in, before any hook."""
        self._inflight = inflight
        self._stop_asked = stop_asked

    @property
    def is_shutting_down(self) -> bool:
        """Whether a stop was asked for; a long call may look and end at a safe point."""
        return self._stop_asked.ready()

    def init_host(self) -> None:
        """Bring what a former life left half done to a sane state. Before anything is taken from the queue."""

    def pre_start_hook(self) -> None:
        """After `init_host`, before the consumers exist."""

    def post_start_hook(self) -> None:
        """The consumers are confirmed; the service is not ready yet."""

    def graceful_shutdown(self, timeout: float) -> None:
        """A stop was asked for and nothing new is taken; `timeout` seconds are left (0: no limit)."""

    def cleanup_host(self) -> None:
        """Nothing is in flight any more; the process ends soon."""

    def reset(self) -> None:
        """HUP: mutable flags were read again."""

    def periodic_tasks(self, context: Any = None) -> None:
        """Run every periodic task once, now. Overridden, it is itself a task, run every `--periodic_interval`."""
        for _, method in tasks_of(self):
            method(context or nova_context.get_admin_context())

    def spawn(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> green.GreenThread:
        """Work in the background that a soft stop waits for."""
        return self._inflight.spawn(function, *args, **kwargs)

    def recover(self, context: Any, method: str, args: dict[str, Any]) -> Any:
        """What to answer for a call to this host that had begun when an earlier process died.

        Raises `MessageAbandoned` unless overridden: nobody knows how far the call came.
        """
        from nova.rpc.errors import MessageAbandoned

        raise MessageAbandoned(f"{method} had begun when its process died; how far it came is not known")

    def rpc_resolve(self, method: str) -> Callable[..., Any] | None:
        """The callable behind a remote method's name, or None where there is no such method."""
        return public_method(self, method)


def public_method(manager: Any, name: str) -> Callable[..., Any] | None:
    """The public method `name` of the manager's class, bound; None for anything else."""
    if not _is_public(type(manager), name):  # type: ignore[arg-type]  # mypy: a type[Any] may lack a hash
        return None
    bound: Callable[..., Any] = getattr(manager, name)
    return bound


@functools.lru_cache(maxsize=4096)
def _is_public(cls: type, name: str) -> bool:
    """Asked with every call; a class does not change."""
    if name.startswith("_") or name in _RESERVED:
        return False
    return inspect.isfunction(inspect.getattr_static(cls, name, None))


class WebManager(Manager):
    """The manager of a web service."""

    # Whether a page of another site may show what a GET returns, as an image for instance.
    is_for_pages = True

    def wsgi_app(self) -> Callable[..., Any]:
        """The WSGI application that serves every request."""
        raise NotImplementedError(f"{type(self).__name__} has no wsgi_app()")


class SchedulerDependentManager(Manager):
    """A manager that tells the schedulers again and again what its host can do."""

    def __init__(self, host: str | None = None, service_name: str = "undefined") -> None:
        super().__init__(host)
        self.service_name = service_name
        self.last_capabilities: dict[str, Any] | None = None

    def report_capabilities(self, capabilities: dict[str, Any]) -> None:
        """Remember what to tell; the next periodic run sends it."""
        self.last_capabilities = capabilities

    @periodic_task
    def publish_service_capabilities(self, context: Any) -> None:
        """Send the capabilities to every scheduler."""
        if self.last_capabilities is None:
            return
        import nova.rpc as rpc

        args = {
            "service_name": self.service_name,
            "host": self.host,
            "capabilities": self.last_capabilities,
        }
        rpc.fanout_cast(context, FLAGS.scheduler_topic, {"method": "update_service_capabilities", "args": args})


# Names that are never remote, whoever defines them.
_RESERVED = frozenset(
    name
    for kind in (Manager, WebManager, SchedulerDependentManager)
    for name in vars(kind)
    if not name.startswith("_")
)
