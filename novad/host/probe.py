"""Probes: does it answer already? HTTP, TCP and command probes, each in a greenlet; the log probe in the output.

A probe begins 50 ms after the start and slows down to one try a second: a service that is ready in 0.1 s is
seen at once, one that needs a minute is not pestered. What a try saw (`connection refused`) is reported for
`why`.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet
    from eventlet.green import socket as green_socket

from novad.core.spec import Health, HttpProbe, Probe, TcpProbe

FIRST_S = 0.05
GROWTH = 1.5
LAST_S = 1.0
TRY_S = 1.0
EXEC_TRY_S = 10.0
ANSWER_BYTES = 4096


class Failed(Exception):
    """One try failed; the text says what was seen."""


def try_tcp(probe: TcpProbe, timeout_s: float) -> None:
    """Connects. Raises `Failed`."""
    _connect(probe.host, probe.port, timeout_s).close()


def _connect(host: str, port: int, timeout_s: float) -> green_socket.socket:
    sock = green_socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect((host, port))
    except (OSError, eventlet.Timeout) as error:
        sock.close()
        raise Failed(f"{host}:{port}: {_reason(error)}") from error
    return sock


def _reason(error: BaseException) -> str:
    if isinstance(error, (TimeoutError, eventlet.Timeout)):
        return "no answer in time"
    number = getattr(error, "errno", None)
    # eventlet raises some of its errors with the errno's name for a text.
    text = os.strerror(number) if number else str(error)
    return text[:1].lower() + text[1:]


def try_http(probe: HttpProbe, timeout_s: float) -> None:
    """One GET; the status line decides. Raises `Failed`."""
    url = urlsplit(probe.url)
    host, port = url.hostname or "127.0.0.1", url.port or 80
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    sock = _connect(host, port, timeout_s)
    try:
        request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: novad\r\nConnection: close\r\n\r\n"
        sock.sendall(request.encode())
        answer = _read_line(sock)
    except (OSError, eventlet.Timeout) as error:
        raise Failed(f"{probe.url}: {_reason(error)}") from error
    finally:
        sock.close()
    found = re.match(rb"HTTP/\d\.\d (\d{3})", answer)
    if not found:
        raise Failed(f"{probe.url}: not an HTTP answer")
    status = int(found.group(1))
    if not probe.status_min <= status <= probe.status_max:
        raise Failed(f"{probe.url}: status {status}")


def _read_line(sock: green_socket.socket) -> bytes:
    data = b""
    while b"\r\n" not in data and len(data) < ANSWER_BYTES:
        more = sock.recv(ANSWER_BYTES)
        if not more:
            break
        data += more
    return data


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a command probe runs in, and who must know its pid so that nobody else reaps it."""

    add_helper: Callable[[int], None]
    remove_helper: Callable[[int], None]
    cwd: str
    env: dict[str, str]


def try_exec(argv: tuple[str, ...], around: Surroundings, timeout_s: float) -> None:
    """Runs a command; exit 0 is success. Its whole group ends with it. Raises `Failed`."""
    try:
        child = subprocess.Popen(
            argv, cwd=around.cwd, env=around.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise Failed(f"{argv[0]}: {_reason(error)}") from error
    around.add_helper(child.pid)
    try:
        if not _wait(child, timeout_s):
            raise Failed(f"{argv[0]}: no result in {timeout_s:g} s")
        if child.returncode:
            raise Failed(f"{argv[0]}: exit {child.returncode}")
    finally:
        _end(child)
        around.remove_helper(child.pid)


def _wait(child: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Whether the child ended in time; sleeps on its pidfd, for `Popen.wait` would block the hub."""
    pidfd = os.pidfd_open(child.pid)
    try:
        eventlet.hubs.trampoline(pidfd, read=True, timeout=timeout_s, timeout_exc=TimeoutError)
    except TimeoutError:
        return False
    finally:
        os.close(pidfd)
    return child.poll() is not None


def _end(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    child.wait()


class LineSearch:
    """The log probe: feed it a child's bytes; `True` once a line matches."""

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(pattern.encode())
        self._tail = b""

    def feed(self, data: bytes) -> bool:
        lines = (self._tail + data).split(b"\n")
        # A prompt without a newline counts too, but a tail is not kept without limit.
        self._tail = lines[-1][-65536:]
        return any(self._pattern.search(line) for line in lines)


def _tries(probe: Probe, around: Surroundings, timeout_s: float) -> dict[str, Callable[[], None]]:
    """The kinds that are asked for, each as a function that raises `Failed`."""
    tries: dict[str, Callable[[], None]] = {}
    if probe.http:
        tries["http"] = partial(try_http, probe.http, timeout_s)
    if probe.tcp:
        tries["tcp"] = partial(try_tcp, probe.tcp, timeout_s)
    if probe.exec:
        tries["exec"] = partial(try_exec, probe.exec, around, max(timeout_s, EXEC_TRY_S))
    return tries


class Probing:
    """The tries of one incarnation until all kinds hold; then `on_ready()`, once.

    `on_seen(text)` gets what the last failed try saw. `log`, `notify` and `notify_fd` are fulfilled from outside, by
    `fulfil`.
    """

    def __init__(
        self, probe: Probe, around: Surroundings, on_ready: Callable[[], None], on_seen: Callable[[str], None]
    ) -> None:
        self._on_ready = on_ready
        self._on_seen = on_seen
        self._left: set[str] = set()
        self._greenlets = []
        for kind in ("notify", "notify_fd", "log", "http", "tcp", "exec"):
            if getattr(probe, kind):
                self._left.add(kind)
        for kind, attempt in _tries(probe, around, TRY_S).items():
            self._greenlets.append(eventlet.spawn(self._repeat, kind, attempt))

    def _repeat(self, kind: str, attempt: Callable[[], None]) -> None:
        pause_s = FIRST_S
        count = 0
        while True:
            eventlet.sleep(pause_s)
            pause_s = min(pause_s * GROWTH, LAST_S)
            count += 1
            try:
                attempt()
            except Failed as failure:
                self._on_seen(f"{kind} {failure} (try {count})")
                continue
            self.fulfil(kind)
            return

    def fulfil(self, kind: str) -> None:
        """One kind holds."""
        if kind in self._left:
            self._left.discard(kind)
            if not self._left:
                self._on_ready()

    def close(self) -> None:
        """No more tries; a command that runs is killed with its group."""
        current = eventlet.getcurrent()
        for thread in self._greenlets:
            if thread is not current:
                thread.kill()


class Checking:
    """The repeated health check of one ready child: `on_unhealthy(reason)` after so many failures in a row."""

    def __init__(self, health: Health, around: Surroundings, on_unhealthy: Callable[[str], None]) -> None:
        self._health = health
        self._tries = _tries(health.probe, around, health.timeout_s)
        self._on_unhealthy = on_unhealthy
        self._greenlet = eventlet.spawn(self._repeat)

    def _repeat(self) -> None:
        failures = 0
        while True:
            eventlet.sleep(self._health.period_s)
            try:
                for attempt in self._tries.values():
                    attempt()
            except Failed as failure:
                failures += 1
                if failures >= self._health.failures:
                    self._on_unhealthy(f"unhealthy {failures} times in a row: {failure}")
                    return
            else:
                failures = 0

    def close(self) -> None:
        """No more checks."""
        if self._greenlet is not eventlet.getcurrent():
            self._greenlet.kill()
