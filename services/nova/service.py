"""The unified service layer: a manager, made a service by listening to the queue, or to the web.

    service.serve(service.Service.create(topic="compute"))     # or serve() alone: the binary's name decides
    sys.exit(service.wait())

`Service` listens to the queue and proxies messages to its manager; `WSGIService` listens to the web. Both have
the same life (`lifecycle`), and a `Launcher` runs any number of them in one process. What a person writes is
the manager and the flag `<topic>_manager`; names and meanings are those of Nova.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nova import binary as binaries
from nova import context as nova_context
from nova import exception, flags, green, metrics, periodic
from nova.binary import create, import_class
from nova.db import services as services_table
from nova.db import session
from nova.inflight import Inflight
from nova.launcher import Launcher
from nova.loopingcall import LoopingCall
from nova.manager import Manager, public_method
from nova.running import DrainReport, Running
from nova.webservice import WSGIService

__all__ = ["DrainReport", "Launcher", "Service", "WSGIService", "create", "import_class", "serve", "wait"]

LOG = logging.getLogger(__name__)
FLAGS = flags.FLAGS

GetServer = Callable[..., Any]
LAST_ROW_S = 0.5


class Service:
    """A service on the queue: its manager's public methods are called by messages to `topic` and `topic.host`."""

    def __init__(
        self,
        host: str,
        binary: str,
        topic: str,
        manager: str,
        report_interval: float | None = None,
        periodic_interval: float | None = None,
        *args: Any,
        get_server: GetServer | None = None,
        **kwargs: Any,
    ) -> None:
        self.host = host
        self.binary = binary
        self.topic = topic
        self.name = f"{binary}@{host}"
        self.manager_class_name = manager
        self.report_interval = report_interval
        self.periodic_interval = periodic_interval
        self._arguments = (args, kwargs)
        self._get_server = get_server
        self._server: Any = None
        self._closing: green.GreenThread | None = None
        self._work = Inflight()
        self.calls = metrics.Calls()
        self._stop_asked = green.Event()
        self._periodic = periodic.Periodic(self._work)
        self._heart = LoopingCall(self.report_state)
        self._is_database_away = False
        self._lag = lambda: 0.0
        self.running = Running(self)

    @classmethod
    def create(
        cls,
        host: str | None = None,
        binary: str | None = None,
        topic: str | None = None,
        manager: str | None = None,
        report_interval: float | None = None,
        periodic_interval: float | None = None,
        **kwargs: Any,
    ) -> Service:
        """A service by convention: the binary's name gives the topic, the flag `<topic>_manager` the class.

        Raises `NoManager`.
        """
        binary = binary or (f"nova-{topic}" if topic else binaries.name())
        topic = topic or binaries.topic_of(binary)
        manager = manager or binaries.manager_path(topic)
        return cls(host or FLAGS.host, binary, topic, manager, report_interval, periodic_interval, **kwargs)

    def __getattr__(self, key: str) -> Any:
        """Whatever the manager has, as in Nova; before `start` there is no manager. Never used for RPC."""
        manager = self.__dict__.get("manager")
        if manager is None:
            raise AttributeError(f"{key}: the service has no manager before start()")
        return getattr(manager, key)

    @property
    def state(self) -> str:
        return self.running.state.value

    @property
    def inflight(self) -> list[Any]:
        """Calls of the queue, periodic and spawned work that have begun and not ended."""
        calls = list(self._server.inflight) if self._server is not None else []
        return [*calls, *self._work.list()]

    def start(self) -> None:
        """Start; returns when the service is ready. Raises what kept it from that."""
        self.running.start()

    def stop(self, timeout: float | None = None) -> DrainReport:
        """End softly: take nothing new, wait for what is in flight at most `timeout` (`--drain_timeout`)."""
        return self.running.stop(FLAGS.drain_timeout if timeout is None else timeout)

    def kill(self, destroy: bool = False) -> None:
        """End at once; with `destroy` the service's row goes too."""
        self.running.kill()
        if destroy:
            services_table.destroy(self.host, self.binary)

    def wait(self) -> int:
        """The exit code, when the service has stopped."""
        return self.running.wait()

    def reset(self) -> None:
        """HUP: the manager may look at its flags again, once there is one."""
        if "manager" in self.__dict__:
            self._hook("reset")

    def watch_lag(self, lag_s: Callable[[], float]) -> None:
        """Where heartbeats take the lag of the hub from."""
        self._lag = lag_s

    def report_state(self) -> None:
        """One heartbeat. A database that is away is logged once, and once more when it is back.

        A service that the broker cannot reach says so in its row, and no scheduler chooses it.
        """
        state = self.state
        if state == "ready" and not self._server.is_up():
            state = "disconnected"  # the heart beats, but nothing can be asked
        self._report_row(state)

    def samples(self) -> Iterable[metrics.Sample]:
        """What this service adds to the metrics of its process."""
        yield from self.calls.samples(self.name)
        for task, count in sorted(self._periodic.failures.items()):
            yield "nova_periodic_failures_total", {"service": self.name, "task": task}, count

    def periodic_tasks(self, raise_on_error: bool = False) -> None:
        """Run every periodic task once, now, whether due or not."""
        for task, method in self._tasks():
            if not self._periodic.run(task, method) and raise_on_error:
                raise exception.Error(f"the periodic task {task.name} failed")

    # What follows is the Part that `Running` drives.

    def open(self) -> None:
        args, kwargs = self._arguments
        self.manager = import_class(self.manager_class_name)(*args, host=self.host, **kwargs)
        if isinstance(self.manager, Manager):
            self.manager.bind(self._work, self._stop_asked)
        self._patiently("the database", session.sync, exception.DatabaseUnavailable)
        with nova_context.use(nova_context.get_admin_context()):
            self._hook("init_host")
            self._report_row("starting", must=True)
            self._hook("pre_start_hook")
            self._server = self._make_server()
            self._server.start()  # waits for the broker as long as it takes
            self._hook("post_start_hook")
        self._report_row("ready", must=True)
        interval_s = self.report_interval or FLAGS.report_interval
        self._heart.start(interval_s, now=False, jitter=0.05, stop_on_exception=False)
        self._periodic.start(self._tasks())

    def drain(self, timeout_s: float) -> None:
        self._stop_asked.send(None)
        self._server.stop()
        self._periodic.stop()
        graceful = getattr(self.manager, "graceful_shutdown", None)
        if graceful is not None:
            self._work.spawn(graceful, timeout_s)
        while self._server.inflight or len(self._work):
            self._server.wait(60.0)
            self._work.wait()

    def unfinished(self) -> Sequence[Any]:
        return self.inflight

    def sever(self) -> None:
        self._heart.stop()
        self._periodic.stop()
        self._work.kill()
        self._close_server()

    def close(self) -> None:
        self._heart.stop()
        self._periodic.stop()
        if "manager" in self.__dict__:
            self._hook("cleanup_host")
        closing = self._close_server()
        if closing is not None:
            closing.wait()
        if "manager" in self.__dict__:
            # In a greenlet of its own: a database that is away must not make a clean stop late.
            last = green.spawn(self._report_row, "stopped")
            with green.Timeout(LAST_ROW_S, False):
                last.wait()

    def report(self, state: str) -> None:
        if state == "draining" and self._server is not None:
            green.spawn(self._report_row, state)

    def dispatch(self, context: Any, method: str, args: dict[str, Any]) -> Any:
        """Call the manager's public method. Raises `NoSuchMethod`, and whatever the method raises."""
        found = self.resolve(method)
        if found is None:
            from nova.rpc.errors import NoSuchMethod

            raise NoSuchMethod(f"{self.topic} has no method {method!r}")
        began_s, outcome = time.monotonic(), "error"
        try:
            with nova_context.use(context):
                result = found(context, **args)
            outcome = "ok"
            return result
        finally:
            self.calls.note(method, outcome, time.monotonic() - began_s)

    def resolve(self, method: str) -> Callable[..., Any] | None:
        """The callable behind a remote method's name, or None."""
        resolve = getattr(self.manager, "rpc_resolve", None)
        found: Callable[..., Any] | None = resolve(method) if resolve else public_method(self.manager, method)
        return found

    def _make_server(self) -> Any:
        get_server = self._get_server
        if get_server is None:
            import nova.rpc as rpc

            get_server = rpc.get_server
        return get_server(
            self.topic,
            self.host,
            self.dispatch,
            prefetch=FLAGS.rpc_thread_pool_size,
            method_of=self.resolve,
            recover=getattr(self.manager, "recover", None),
        )

    def _close_server(self) -> green.GreenThread | None:
        """Begin to close the queue's side, once; the greenlet that does so, None where there is nothing."""
        if self._closing is None and self._server is not None:
            self._closing = green.spawn(self._server.close)
        return self._closing

    def _tasks(self) -> list[Any]:
        tasks = periodic.tasks_of(self.manager)
        own = getattr(type(self.manager), "periodic_tasks", None)
        if own is not None and own is not Manager.periodic_tasks:
            spacing_s = self.periodic_interval or 0.0
            tasks.append((periodic.Task("periodic_tasks", spacing_s), self.manager.periodic_tasks))
        return tasks

    def _hook(self, name: str) -> None:
        hook = getattr(self.manager, name, None)
        if hook is not None:
            hook()

    def _patiently(self, what: str, function: Callable[[], Any], *errors: type[Exception]) -> None:
        """Call until it works; say once that we wait, and once that it came."""
        pause_s, waited = 0.1, False
        while True:
            try:
                function()
            except errors as error:
                if not waited:
                    LOG.warning("%s waits for %s: %s", self.name, what, error)
                waited = True
            else:
                if waited:
                    LOG.warning("%s: %s is back", self.name, what)
                return
            green.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 1.5, 2.0)

    def _report_row(self, state: str, must: bool = False) -> None:
        def write() -> None:
            services_table.report(
                self.host,
                self.binary,
                self.topic,
                state=state,
                availability_zone=FLAGS.node_availability_zone,
                progress=self._work.done + self.calls.total,
                inflight=len(self.inflight),
                hub_lag_ms=round(self._lag() * 1000, 3),
            )

        if must:
            self._patiently("the database", write, exception.DatabaseUnavailable)
            return
        try:
            write()
        except exception.DatabaseUnavailable as error:
            if not self._is_database_away:
                LOG.error("%s: no heartbeat, the database is away: %s", self.name, error)
            self._is_database_away = True
        else:
            if self._is_database_away:
                LOG.error("%s: the database is back", self.name)
            self._is_database_away = False


_launcher: Launcher | None = None


def serve(*services: Service | WSGIService) -> Launcher:
    """Start services in this process; without any, the one that the binary's name says."""
    global _launcher
    if _launcher is None:
        _launcher = Launcher(name=binaries.name())
    for item in services or (create(),):
        _launcher.launch_service(item)
    return _launcher


def wait() -> int:
    """Run until the services that `serve` started have stopped; the process's exit code."""
    global _launcher
    if _launcher is None:
        return exception.EXIT_CLEAN
    try:
        return _launcher.wait()
    finally:
        _launcher = None
