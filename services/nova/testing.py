"""Helpers for people who test services; nothing here is a mock of nova itself.

`worker_factory` makes a manager with its dependencies replaced, no service around it. `service_runner` runs
services in this process, `call_waiter` waits for the next call of one of their methods. `ServiceProcess` runs a
binary as the real process it is, under a supervisor made of a socket and signals.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from nova import context as nova_context
from nova import green

T = TypeVar("T")
DEADLINE_S = 20.0
STOP_TIMEOUT_S = 2.0


def worker_factory(manager_class: type[T], host: str = "test-host", **dependencies: Any) -> T:
    """A manager without a service, its attributes named in `dependencies` replaced.

    Raises `TypeError` for a dependency that the manager does not have.
    """
    manager = manager_class(host=host)  # type: ignore[call-arg]
    for name, value in dependencies.items():
        if not hasattr(manager, name):
            raise TypeError(f"{manager_class.__name__} has no {name!r} to replace")
        setattr(manager, name, value)
    return manager


@contextlib.contextmanager
def service_runner(*services: Any) -> Iterator[tuple[Any, ...]]:
    """Services, started in order and ready; stopped in the opposite order at the end of the block.

    Raises `AssertionError` where a stop had to cut off what was in flight.
    """
    started: list[Any] = []
    reports: list[Any] = []
    try:
        for service in services:
            started.append(service)
            service.start()
        yield services
    finally:
        for service in reversed(started):
            reports.append(service.stop(timeout=STOP_TIMEOUT_S))
    cut_off = [line for report in reports for line in report.unfinished]
    if cut_off:
        raise AssertionError(f"a service did not come to its end: {cut_off}")


def rpc_hook(service: Any, method: str, context: Any = None) -> Any:
    """A function that calls a method of a running service as a message would, without a broker."""

    def call(**args: Any) -> Any:
        return service.dispatch(context or nova_context.get_admin_context(), method, args)

    return call


class Outcome:
    """What a method returned, or raised."""

    def __init__(self) -> None:
        self._event = green.Event()

    def wait(self, timeout_s: float = DEADLINE_S) -> Any:
        """The result. Raises what the method raised, or `TimeoutError` if it is not called in time."""
        with green.Timeout(timeout_s, TimeoutError(f"not called in {timeout_s:g} s")):
            return self._event.wait()

    def send(self, result: Any) -> None:
        if not self._event.ready():
            self._event.send(result)

    def send_exception(self, error: BaseException) -> None:
        if not self._event.ready():
            self._event.send_exception(error)


@contextlib.contextmanager
def call_waiter(service: Any, method: str) -> Iterator[Outcome]:
    """The outcome of the next call of `method` on a running service's manager."""
    manager, outcome = service.manager, Outcome()
    kind, original = type(manager), getattr(type(manager), method)

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            result = original(self, *args, **kwargs)
        except BaseException as error:
            if self is manager:
                outcome.send_exception(error)
            raise
        if self is manager:
            outcome.send(result)
        return result

    # On the class, since remote methods are looked up there.
    setattr(kind, method, watched)
    try:
        yield outcome
    finally:
        setattr(kind, method, original)


# What a supervisor does to hand over a socket: sd_listen_fds(3).
_PASS_SOCKET = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class ServiceProcess:
    """`nova-NAME --flags` (or a script) in a process of its own, with a notification socket and a log file.

    `listen` is a socket that it inherits as its first one.

    Use it as a context manager: whatever happens, nothing of it is left behind.
    """

    def __init__(
        self,
        binary: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        pythonpath: str = "",
        listen: socket.socket | None = None,
        directory: str | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nova-", dir=directory)
        folder = Path(self._folder.name)
        self._log = folder / "log"
        self._ears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ears.bind(str(folder / "notify"))
        services = str(Path(__file__).parent.parent)
        self._env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [services, pythonpath])),
            "NOTIFY_SOCKET": str(folder / "notify"),
            "NOVA_STATE_PATH": str(folder / "state"),
            "NOVA_HOST": "test-host",
            **(env or {}),
        }
        how = [binary] if binary.endswith(".py") else ["-m", "nova", binary]
        self._command = [sys.executable, *how, *arguments]
        self._pass_fds: tuple[int, ...] = ()
        if listen is not None:
            self._pass_fds = (listen.fileno(),)
            self._command = [sys.executable, "-c", _PASS_SOCKET, str(listen.fileno()), *self._command]
        self.said: list[str] = []

    def __enter__(self) -> ServiceProcess:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self._pass_fds,
                start_new_session=True,
            )
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._ears.close()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def state_path(self) -> Path:
        return Path(self._env["NOVA_STATE_PATH"])

    @property
    def log(self) -> str:
        """All that it wrote to stdout and stderr."""
        return self._log.read_text(errors="replace")

    def wait_said(self, line: str, timeout_s: float = DEADLINE_S) -> None:
        """Until the service has said `line` (`READY=1`) to its supervisor. Raises `TimeoutError`."""
        deadline_s = time.monotonic() + timeout_s
        while line not in self.said:
            has_ended = self.process.poll() is not None
            left_s = 0.0 if has_ended else min(0.2, deadline_s - time.monotonic())
            if select.select([self._ears], [], [], max(0.0, left_s))[0]:
                self.said += self._ears.recv(4096).decode().split("\n")
            elif has_ended or time.monotonic() > deadline_s:
                raise TimeoutError(f"{line} was not said; exit code {self.process.poll()}:\n{self.log}")

    def wait_ready(self, timeout_s: float = DEADLINE_S) -> ServiceProcess:
        self.wait_said("READY=1", timeout_s)
        return self

    def wait_log(self, text: str, timeout_s: float = DEADLINE_S) -> None:
        """Until `text` is in the log. Raises `TimeoutError`."""
        deadline_s = time.monotonic() + timeout_s
        while text not in self.log:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{text!r} was not logged:\n{self.log}")
            time.sleep(0.02)

    def signal(self, name: str) -> None:
        """Send a signal, named without SIG."""
        self.process.send_signal(getattr(signal, f"SIG{name}"))

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """The exit code. Raises `TimeoutError` with the log."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"still running after {timeout_s:g} s:\n{self.log}") from None
