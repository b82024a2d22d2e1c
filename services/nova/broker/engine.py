"""nova-broker with another engine: a private node of the installed RabbitMQ, in the foreground.

The services and novad see the same process: the same user and password file, the same port file, READY=1 when it
accepts, TERM ends it. The node has its own name, ports, cookie and data under the state path, belongs to whoever
starts it, and takes the epmd it needs down with it. Variables: https://www.rabbitmq.com/docs/configure.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LOG = logging.getLogger("nova.broker")

# Debian's command in the path serves root and rabbitmq only; the script behind it serves anybody.
SERVERS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.1
PR_SET_PDEATHSIG = 1  # linux/prctl.h
QUIET_SCHEDULERS = (
    "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"  # one core, and no busy waiting: 2.5 ms/s idle
)


class EngineError(Exception):
    """RabbitMQ is not installed, or does not start."""


class Node(NamedTuple):
    """What a node is told. `folder` is its home; ports are TCP ports of 127.0.0.1."""

    folder: Path
    address: str
    port: int
    user: str
    password: str


class Engine:
    """The node's processes."""

    def __init__(self, node: Node) -> None:
        """Starts it. Raises `EngineError`."""
        server = next(filter(None, map(shutil.which, SERVERS)), None)
        if server is None:
            raise EngineError("rabbitmq-server is not installed")
        node.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.node = node
        self._epmd_port, distribution_port = free_port(), free_port()
        configuration = node.folder / "rabbitmq.conf"
        configuration.write_text(configure(node))
        configuration.chmod(0o600)
        self._process = subprocess.Popen(
            [server],
            env={**_inherited(), **environment(node, configuration, self._epmd_port, distribution_port)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent(),
        )
        self.pidfd = os.pidfd_open(self._process.pid)

    def accepts(self) -> bool:
        """Whether a client would be answered."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection((self.node.address, self.node.port), 1) as link,
        ):
            link.sendall(b"AMQP\0\0\x09\x01")
            return link.recv(1) == b"\1"
        return False

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def reap(self, timeout_s: float) -> int | None:
        """The node's exit code; None where it has not ended."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self.kill()  # what the script left behind
        self._end_epmd()
        return code

    def _end_epmd(self) -> None:
        """It daemonizes and outlives its node; its port, which is ours alone, is how to reach it."""
        found = shutil.which("epmd")
        if found is not None:
            command = [found, "-port", str(self._epmd_port), "-kill"]
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)


def _inherited() -> dict[str, str]:
    """RabbitMQ would speak to our supervisor itself, of stages that are not ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("NOTIFY_")}


def _end_with_parent() -> Callable[[], None]:
    """What the child does before exec: the kernel sends it TERM when we are killed (prctl(2))."""
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask


def configure(node: Node) -> str:
    """rabbitmq.conf: one user, who is served from this machine only. The user is made at the node's first start."""
    return (
        f"listeners.tcp.1 = {node.address}:{node.port}\n"
        f"default_user = {node.user}\n"
        f"default_pass = {node.password}\n"
        "log.console = true\n"
        "log.console.level = warning\n"
    )


def environment(node: Node, configuration: Path, epmd_port: int, distribution_port: int) -> dict[str, str]:
    folder = node.folder
    return {
        "HOME": str(folder),  # the Erlang cookie
        "RABBITMQ_NODENAME": f"nova-broker-{node.port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": node.address,
        "RABBITMQ_NODE_PORT": str(node.port),
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_MNESIA_DIR": str(folder / "mnesia" / "node"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONFIG_FILE": str(configuration),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": QUIET_SCHEDULERS,
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(engine: Engine, signals: socket.socket) -> bool:
    """False where a signal or the node's end came first. Raises `EngineError` after START_TIMEOUT_S."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if engine.accepts():
            return True
        # A node says nothing when it is ready that a script could not also say too early: so it is asked.
        if _ready(engine, signals, POLL_S):
            return False
    raise EngineError(f"rabbitmq-server does not accept after {START_TIMEOUT_S:g} s")


def _ready(engine: Engine, signals: socket.socket, timeout_s: float | None) -> list[int]:
    return select.select([engine.pidfd, signals.fileno()], [], [], timeout_s)[0]


def serve(engine: Engine, signals: socket.socket) -> int:
    """Until the node ends or a signal asks for it. The exit code: 0 for an end that was asked for."""
    is_asked = False
    while True:
        ready = _ready(engine, signals, None)
        if signals.fileno() in ready:
            numbers = signals.recv(4096)
            if signal.SIGQUIT in numbers:
                engine.kill()
            elif signal.SIGTERM in numbers or signal.SIGINT in numbers:
                is_asked = True
                engine.terminate()
                if not select.select([engine.pidfd], [], [], STOP_TIMEOUT_S)[0]:
                    LOG.error("rabbitmq-server did not end in %g s: it is killed", STOP_TIMEOUT_S)
                    engine.kill()
        if engine.pidfd in ready or is_asked:
            code = engine.reap(STOP_TIMEOUT_S)
            return 0 if is_asked and code is not None else 1
