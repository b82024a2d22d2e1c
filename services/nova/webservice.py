"""A service on the web: a wrapper that only does WSGI. It needs no queue, no database and no manager.

With a manager, `wsgi_app()` is the application and the hooks are called as for any service.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from nova import binary as binaries
from nova import context as nova_context
from nova import flags, green, metrics, periodic, wsgi
from nova.inflight import Inflight
from nova.manager import Manager
from nova.running import DrainReport, Running

LOG = logging.getLogger(__name__)
FLAGS = flags.FLAGS
flags.DEFINE_list("allowed_hosts", [], "names of a web service that listens on loopback, beside localhost")


class WSGIService:
    """`application`, or the one of the class `manager`, on `host:port`.

    Without these two, the flags `--<name>_listen` and `--<name>_listen_port` say where.
    """

    def __init__(
        self,
        name: str,
        application: Any = None,
        host: str | None = None,
        port: int | None = None,
        threads: int = 1000,
        sock: Any = None,
        manager: Any = None,
        limits: wsgi.Limits | None = None,
    ) -> None:
        self.name = f"nova-{name}"
        self.topic = name
        self._application = application
        self._manager_class = manager
        self._address = (host, port)
        _listen_flags(name)
        self._sock = sock
        self._limits = limits or wsgi.Limits(threads=threads)
        self._server = wsgi.Server(limits=self._limits)
        self._work = Inflight()
        self._stop_asked = green.Event()
        self._periodic = periodic.Periodic(self._work)
        self.manager: Any = None
        self.running = Running(self)

    @classmethod
    def create(
        cls,
        name: str | None = None,
        binary: str | None = None,
        topic: str | None = None,
        manager: str | None = None,
        **kwargs: Any,
    ) -> WSGIService:
        """By convention: `<name>_manager` is the class. Raises `NoManager`."""
        name = name or topic or binaries.topic_of(binary or binaries.name())
        if "application" not in kwargs:
            kwargs["manager"] = binaries.import_class(manager or binaries.manager_path(name))
        return cls(name, **kwargs)

    @property
    def state(self) -> str:
        return self.running.state.value

    @property
    def port(self) -> int:
        """The port that is bound, once started."""
        return self._server.port

    @property
    def inflight(self) -> list[Any]:
        return [*self._server.inflight, *self._work.list()]

    def start(self) -> None:
        """Start; returns when the socket listens. Raises what kept it from that."""
        self.running.start()

    def stop(self, timeout: float | None = None) -> DrainReport:
        """End softly: no new connection, every request that has begun gets its response."""
        return self.running.stop(FLAGS.drain_timeout if timeout is None else timeout)

    def kill(self) -> None:
        """End at once."""
        self.running.kill()

    def wait(self) -> int:
        """The exit code, when the service has stopped."""
        return self.running.wait()

    def reset(self) -> None:
        """HUP: the manager may look at its flags again."""
        self._hook("reset")

    def samples(self) -> Iterable[metrics.Sample]:
        """What this service adds to the metrics of its process."""
        yield "nova_calls_total", {"service": self.name, "method": "wsgi", "outcome": "ok"}, self._server.done
        yield "nova_shed_total", {"service": self.name}, self._server.shed
        for task, count in sorted(self._periodic.failures.items()):
            yield "nova_periodic_failures_total", {"service": self.name, "task": task}, count

    # What follows is the Part that `Running` drives.

    def open(self) -> None:
        if self._manager_class is not None:
            self.manager = self._manager_class()
            if isinstance(self.manager, Manager):
                self.manager.bind(self._work, self._stop_asked)
            with nova_context.use(nova_context.get_admin_context()):
                self._hook("init_host")
                self._application = self.manager.wsgi_app()
                self._hook("pre_start_hook")
        sock = self._sock if self._sock is not None else wsgi.inherited_socket(self.topic)
        host, port = self._listen_address() if sock is None else (_host_of(sock), 0)
        names = FLAGS.allowed_hosts if wsgi.is_here(f"[{host}]" if ":" in host else host, ()) else None
        guarded = wsgi.Guard(self._application, names, getattr(self.manager, "is_for_pages", True))
        application = wsgi.Health(guarded, lambda: self.state)
        if sock is not None:
            self._server.start(application, sock=sock)
        else:
            self._server.start(application, port, host)
        LOG.info("%s listens on port %d", self.name, self.port)
        self._hook("post_start_hook")
        if self.manager is not None:
            self._periodic.start(periodic.tasks_of(self.manager))

    def drain(self, timeout_s: float) -> None:
        self._stop_asked.send(None)
        self._server.stop()
        self._periodic.stop()
        graceful = getattr(self.manager, "graceful_shutdown", None)
        if graceful is not None:
            self._work.spawn(graceful, timeout_s)
        self._server.wait()
        self._work.wait()

    def unfinished(self) -> Sequence[Any]:
        return self.inflight

    def sever(self) -> None:
        self._periodic.stop()
        self._work.kill()
        self._server.kill()

    def close(self) -> None:
        self._periodic.stop()
        self._server.stop()
        if self.manager is not None:
            self._hook("cleanup_host")

    def report(self, state: str) -> None:
        """Nobody keeps a row about a web service."""

    def _listen_address(self) -> tuple[str, int]:
        host, port = self._address
        listen, listen_port = _listen_flags(self.topic)
        return host or FLAGS[listen], FLAGS[listen_port] if port is None else port

    def _hook(self, name: str) -> None:
        hook = getattr(self.manager, name, None)
        if hook is not None:
            hook()


def _host_of(sock: Any) -> str:
    """The address that a socket is bound to; empty for a unix socket."""
    address = sock.getsockname()
    return str(address[0]) if isinstance(address, tuple) else ""


def _listen_flags(name: str) -> tuple[str, str]:
    """The names of the two flags, which are defined here unless the manager's module did."""
    listen, listen_port = f"{name}_listen", f"{name}_listen_port"
    if listen not in FLAGS:
        flags.DEFINE_string(listen, "127.0.0.1", f"address that nova-{name} listens on")
    if listen_port not in FLAGS:
        flags.DEFINE_integer(listen_port, 0, f"port that nova-{name} listens on; 0 takes a free one")
    return listen, listen_port
