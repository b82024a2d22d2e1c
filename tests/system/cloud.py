"""A cloud of real processes: nova-broker and the services, each started as a supervisor would."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from nova.testing import ServiceProcess

# Name of a process (for system services also its host) -> binary.
SERVICES = {
    "nova-network": "nova-network",
    "nova-volume": "nova-volume",
    "nova-scheduler": "nova-scheduler",
    "compute-1": "nova-compute",
    "compute-2": "nova-compute",
}


class Cloud:
    """Services as processes, which end with `stack`; `url("api")` is where one listens."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path, **env: str) -> None:
        self.stack = stack
        self.folder = folder
        self.processes: dict[str, ServiceProcess] = {}
        self.env = {
            "NOVA_STATE_PATH": str(folder / "state"),
            "NOVA_BROKER_PASSWORD_FILE": str(folder / "state/password"),
            **env,
        }

    def start(self, binary: str, *flags: str, host: str | None = None) -> ServiceProcess:
        """Start a binary and return at once; `wait_ready` is the caller's."""
        env = {**self.env, "NOVA_HOST": host or binary}
        process = self.stack.enter_context(ServiceProcess(binary, *flags, env=env))
        self.processes[host or binary] = process
        return process

    def start_all(self) -> Cloud:
        """The broker, then everybody else at once; returns when all are ready."""
        port_file = self.folder / "port"
        self.start("nova-broker", "--port=0", f"--port_file={port_file}").wait_ready()
        self.env["NOVA_BROKER"] = f"amqp://127.0.0.1:{port_file.read_text().strip()}/"
        for name, binary in SERVICES.items():
            self.start(binary, host=name)
        self.start("nova-objectstore", "--objectstore_listen_port=0")
        self.start("nova-api", "--api_listen_port=0")
        for process in self.processes.values():
            process.wait_ready(60.0)
        return self

    def kill(self, name: str) -> ServiceProcess:
        """`kill -9` the broker or one of SERVICES and start it again; `wait_ready` is the caller's."""
        self.processes[name].process.kill()
        self.processes[name].wait()
        port = self.env["NOVA_BROKER"].rstrip("/").rpartition(":")[2]
        flags = (f"--port={port}",) if name == "nova-broker" else ()
        return self.start(SERVICES.get(name, name), *flags, host=name)

    def url(self, name: str, path: str = "") -> str:
        """From the log, which says on which free port a service listens."""
        port = re.findall(rf"nova-{name} listens on port (\d+)", self.processes[f"nova-{name}"].log)[-1]
        return f"http://127.0.0.1:{port}{path}"

    @property
    def urls(self) -> tuple[str, str]:
        return self.url("api", "/services/Cloud"), self.url("objectstore")
