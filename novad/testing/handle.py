"""`nova`: what a test can ask of its cluster and do to it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

from novad.client.app import App
from novad.client.link import Unanswered
from novad.client.owned import Owned
from novad.client.verbs.why import report
from novad.core.errors import NovadError
from novad.core.select import select
from novad.core.spec import ProcessSpec
from novad.testing.logs import Marks, ServiceLog

CALL_S = 60.0
WHY_LINES = 20


class Unready(NovadError):
    """A service did not come into the state that was waited for; the text tells why."""


class Nova:
    """A cluster. `current` gives the one that the running test has chosen, and where its log marks are."""

    def __init__(self, app: App, current: Callable[[], tuple[Owned, Marks]]) -> None:
        self._app = app
        self._current = current

    @property
    def cluster(self) -> Owned:
        return self._current()[0]

    @property
    def namespace(self) -> str:
        return self.cluster.place.namespace

    @property
    def socket(self) -> str:
        return self.cluster.place.socket

    # -- look

    def status(self, name: str | None = None) -> Any:
        """The rows of `novad status --json` by process, or the row of one. Raises `NoSuchService`."""
        if name is None:
            return {row["name"]: row for row in self.cluster.processes()}
        return self.cluster.ask("status", names=[name], usage=False)["processes"][0]

    def state(self, name: str) -> str:
        return str(self.status(name)["state"])

    def names(self, selector: str = "all") -> list[str]:
        """The processes that a service, a group or a glob means. Raises `NoSuchService`."""
        cluster = self.cluster.cluster
        return select([selector], {spec.name: spec for spec in cluster.processes}, cluster.groups)

    def spec(self, name: str) -> ProcessSpec:
        """The definition of a process, of the first replica where a service is named."""
        first = self.names(name)[0]
        return next(spec for spec in self.cluster.cluster.processes if spec.name == first)

    def url(self, name: str) -> str:
        """Raises `NovadError` where the service has none."""
        found = self.spec(name).url
        if found is None:
            raise NovadError(f"{name} has no url", f"give [services.{name}] a `url` or a port called http")
        return found

    def port(self, name: str, port: str | None = None) -> int:
        """`port("api")` is the first port of api, `port("api.http")` and `port("api", "http")` the one of that name.

        Raises `NovadError`.
        """
        spec, _, last = name.rpartition(".")
        if port is None and spec and not last.isdigit():
            name, port = spec, last
        ports = self.spec(name).ports
        if not ports or (port is not None and port not in ports):
            wanted = f" {port}" if port else ""
            raise NovadError(f"{name} has no port{wanted}", f"its ports: {', '.join(ports) or 'none'}")
        return ports[port].number if port else next(iter(ports.values())).number

    def env(self) -> dict[str, str]:
        """What a program needs to find the services (docs/ci.md), laid over this process's environment."""
        return {**os.environ, **self.cluster.environment()}

    def logs(self, name: str) -> ServiceLog:
        """What a process has written since the test began."""
        cluster, marks = self._current()
        return ServiceLog(self.names(name)[0], cluster, marks, self.why)

    def new_marks(self) -> Marks:
        return Marks(self.cluster)

    def why(self, name: str) -> str:
        """The text of `novad why`."""
        entries = self.cluster.ask("why", names=[name])["processes"]
        rows = self.cluster.processes()
        return "\n\n".join("\n".join(report(self._app, entry, rows, WHY_LINES)) for entry in entries)

    # -- do

    def wait(self, name: str, state: str = "ready", timeout: float = 30.0) -> None:
        """Until `state` (ready, stopped, done) holds. Raises `Unready` when it does not in time, or cannot any more."""
        try:
            reply = self.cluster.ask("wait", timeout, names=[name], **{"for": state})
        except Unanswered:
            raise Unready(f"{name} is not {state} after {timeout:g} s\n{self.why(name)}") from None
        if not reply["met"]:
            raise Unready(f"{name} will not be {state}\n{self.why(name)}")

    def start(self, name: str, timeout: float = 30.0) -> None:
        """Start, and wait until it is ready."""
        self.cluster.ask("start", names=[name])
        self.wait(name, "ready", timeout)

    def stop(self, name: str, timeout: float = 60.0) -> None:
        """Returns when the whole tree is gone."""
        self.cluster.ask("stop", timeout, names=[name])

    def restart(self, name: str, timeout: float = 60.0) -> None:
        """Restart, and wait until it is ready."""
        self.cluster.ask("restart", timeout, names=[name])
        self.wait(name, "ready", timeout)

    def signal(self, name: str, signal: str) -> None:
        """A death by this signal counts as asked for."""
        self.cluster.ask("signal", names=[name], signal=signal)

    def call(self, topic: str, method: str, /, timeout: float = CALL_S, **arguments: Any) -> Any:
        """The result of a remote call, by the command that nova.toml names in `[novad] call`.

        Raises `NovadError` with what the command said where it fails.
        """
        program = self.cluster.cluster.call
        if not program:
            raise NovadError(
                "nova.toml names no command for calls", 'call = ["nova-manage", "rpc"] under [novad]'
            )
        words = [f"{key}:={json.dumps(value)}" for key, value in arguments.items()]
        done = subprocess.run(
            [*program, topic, method, *words], env=self.env(), cwd=self.cluster.place.dir, capture_output=True,
            text=True, timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise NovadError(
                f"{topic}.{method}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return json.loads(done.stdout) if done.stdout.strip() else None
