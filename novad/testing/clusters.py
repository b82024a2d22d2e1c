"""The clusters of a test run: which one a test gets, what it wrote, and who crashed while a test ran.

A cluster starts when the first test asks for it. Under pytest-xdist each worker asks for itself: in the mode
`shared` they name the same namespace, one of them starts the daemon and the others join it; in the mode `worker`
each has its own. Nobody coordinates, and a run that asks for none starts none.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from novad.client import owned
from novad.client.app import App, Options
from novad.client.owned import Owned
from novad.core.errors import NovadError
from novad.core.place import Place
from novad.core.spec import Cluster
from novad.testing.compiling import compiler
from novad.testing.handle import Nova
from novad.testing.logs import Marks
from novad.testing.rising import come_up

KIND = "test-"
MAX_LINES = 200


@dataclass(frozen=True)
class Key:
    """Which cluster: tests with an equal key share one. `fresh` is the module that has one of its own."""

    profile: str | None = None
    services: tuple[str, ...] = ()
    fresh: str = ""


@dataclass
class Live:
    """A cluster that runs, with the marks of the running test; or why it does not."""

    cluster: Owned
    marks: Marks
    reported: list[str] = field(default_factory=list)


class Clusters:
    """All of one process (a worker has its own)."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._live: dict[Key, Live] = {}
        self._failures: dict[Key, str] = {}
        self._key = Key()
        self._has_failed = False
        self.summary: list[str] = []
        file = self._option("file")
        self._app = App(
            Options(directory=str(config.rootpath), file=file or None, color="never", quiet=True), compiler(),
            lambda _words, _app: 2,
        )  # fmt: skip
        self._run = self._run_id()

    def _option(self, name: str) -> str:
        """Command line, then ini."""
        key = f"novad_{name}" if name else "novad"
        given = self._config.getoption(f"--novad{f'-{name}' if name else ''}")
        return str(given if given is not None else self._config.getini(key))

    def _run_id(self) -> str:
        inputs = getattr(self._config, "workerinput", None)
        if inputs is None:
            return uuid.uuid4().hex[:8]
        run = str(inputs["testrunuid"])[:8]
        return f"{run}-{inputs['workerid']}" if self._option("") == "worker" else run

    # -- which

    def choose(self, item: pytest.Item) -> None:
        """The cluster that `item` asks for is the current one, and is ready."""
        marker = item.get_closest_marker("novad")
        given = dict(marker.kwargs) if marker else {}
        fresh = given.pop("fresh", False)
        self._key = Key(given.get("profile"), tuple(given.get("services") or ()), fresh_of(item) if fresh else "")
        self._ensure()
        self.mark_logs()

    def nova(self) -> Nova:
        self._ensure()
        return Nova(self._app, self._current)

    def make(self, profile: str | None = None, services: list[str] | None = None) -> Nova:
        """A further cluster, which lives until the run ends."""
        key = Key(profile, tuple(services or ()), uuid.uuid4().hex)
        live = self._start(key)
        return Nova(self._app, lambda: (live.cluster, live.marks))

    def _current(self) -> tuple[Owned, Marks]:
        live = self._live[self._key]
        return live.cluster, live.marks

    def _ensure(self) -> None:
        if self._key in self._live:
            return
        if self._key in self._failures:
            pytest.fail(f"the cluster did not come up before:\n{self._failures[self._key]}", pytrace=False)
        self._start(self._key)

    # -- start

    def _start(self, key: Key) -> Live:
        mode = self._option("")
        if mode == "off":
            pytest.skip("--novad=off")
        socket = os.environ.get("NOVAD_SOCKET")
        # Told outside of the handler: what failed is not that something went wrong while we handled it.
        failure = ""
        try:
            if key == Key() and (mode == "attach" or (mode == "auto" and socket)):
                cluster = owned.attach(self._app.place(), socket)
            else:
                cluster = self._own(key)
        except NovadError as error:
            render = getattr(error, "render", None)
            failure = self._failures[key] = render(color=False) if callable(render) else error.message
        if failure:
            pytest.fail(failure, pytrace=False)
        cluster.link.request("subscribe", states=True, lines=None)
        # Of a cluster that others have used before us, what crashed before is not our tests' doing.
        cluster.excused |= {(entry["name"], item["run"]) for entry, item in cluster.crashes()}
        live = self._live[key] = Live(cluster, Marks(cluster))
        return live

    def _own(self, key: Key) -> Owned:
        is_worker = hasattr(self._config, "workerinput")
        made = owned.start(
            self._app.place(missing_ok=False), self._namespace(key), lambda place: self._compile(place, key.profile),
            owner_pid=os.getppid() if is_worker else None,
        )  # fmt: skip
        assert made.guardian is not None
        # A test runs for as long as it likes, and nobody hears what its cluster's daemon does meanwhile.
        made.guardian.watch_daemon()
        try:
            come_up(self._app, made, key.services, float(self._option("timeout")))
        except BaseException:
            self._has_failed = True
            made.stop(kill=True)
            raise
        return made

    def _namespace(self, key: Key) -> str:
        if key == Key():
            return f"{KIND}{self._run}"
        if key.fresh:
            return f"{KIND}{self._run}-{uuid.uuid4().hex[:8]}"
        return f"{KIND}{self._run}-{hashlib.sha256(repr(key).encode()).hexdigest()[:8]}"

    def _compile(self, place: Place, profile: str | None) -> Cluster:
        chosen = profile or self._option("profile") or self._app.profile
        return self._app.compiler.compile(
            place, profile=chosen, overrides={}, taken_ports={}, scale={}, environ=os.environ, is_isolated=True
        )

    # -- a test

    def mark_logs(self) -> None:
        for live in self._live.values():
            live.marks.set()

    def complete(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """A crash in this phase fails it; a failure gets the lines that the services wrote meanwhile."""
        crashes = [text for live in self._live.values() for text in self._new_crashes(live, item)]
        if crashes:
            fail(report, "\n\n".join(crashes))
        wanted = self._option("logs")
        if (wanted == "all" and report.when == "call") or (report.failed and wanted != "none"):
            self._add_logs(item, report)
        self._has_failed = self._has_failed or report.failed

    def _new_crashes(self, live: Live, item: pytest.Item | None) -> list[str]:
        """The `why` of each crash since the last look that no marker allows."""
        cluster = live.cluster
        try:
            cluster.ask("ping")
            if not cluster.link.queued_events():
                return []
            found = cluster.crashes()
        except NovadError as error:
            return self._daemon_lost(live, error)
        cluster.excused |= {(entry["name"], exit_["run"]) for entry, exit_ in found}
        names = dict.fromkeys(entry["name"] for entry, _ in found)
        nova = Nova(self._app, lambda: (cluster, live.marks))
        return [
            f"{name} crashed, and nobody asked for it:\n{nova.why(name)}"
            for name in names
            if item is None or not is_allowed(item, name)
        ]

    def _daemon_lost(self, live: Live, error: NovadError) -> list[str]:
        text = f"the daemon of {live.cluster.place.namespace} is lost: {error}"
        if text in live.reported:
            return []
        live.reported.append(text)
        return [text]

    def _add_logs(self, item: pytest.Item, report: pytest.TestReport) -> None:
        for live in self._live.values():
            for name, lines in live.marks.written().items():
                left_out = f"... {len(lines) - MAX_LINES} lines before these\n" if len(lines) > MAX_LINES else ""
                text = left_out + "\n".join(lines[-MAX_LINES:])
                # pytest hands sections that begin so to the JUnit report, as junit_logging says; it takes them
                # from the report of the teardown, which is made from the item.
                report.sections.append((f"Captured log of service {name}", text))
                item.add_report_section(report.when or "call", f"log of service {name}", text)
                item.user_properties.append((f"novad.log.{name}", text))

    # -- the end

    def close_fresh(self, nextitem: pytest.Item | None) -> None:
        """The clusters of a module end with it."""
        following = fresh_of(nextitem) if nextitem is not None else ""
        for key in [key for key in self._live if key.fresh.endswith("::") and key.fresh != following]:
            self._close(self._live.pop(key))

    def finish(self) -> bool:
        """End everything; whether there were crashes that no test has reported."""
        late = [text for live in self._live.values() for text in self._new_crashes(live, None)]
        self.summary += [line for text in late for line in text.splitlines()]
        self._has_failed = self._has_failed or bool(late)
        while self._live:
            self._close(self._live.popitem()[1])
        return bool(late)

    def _close(self, live: Live) -> None:
        cluster = live.cluster
        if self._config.getoption("--novad-keep"):
            place = cluster.place
            cluster.release()
            self.summary.append(f"runs on: novad -f {place.config} --namespace {place.namespace} down stops it")
            return
        if cluster.guardian is None:
            cluster.leave()
            return
        with owned.alone(cluster.place):
            if cluster.leave():
                self._keep_logs(cluster)

    def _keep_logs(self, cluster: Owned) -> None:
        """Logs go to the report directory; of a run without failures nothing else stays."""
        directory = self._option("report")
        logs = Path(cluster.place.log_dir)
        if directory and logs.is_dir():
            shutil.copytree(logs, Path(directory) / cluster.place.namespace, dirs_exist_ok=True)
        if not self._has_failed:
            owned.remove_files(cluster.place)
        elif logs.is_dir():
            self.summary.append(f"logs of the services: {logs}")
            owned.remove_old(cluster.place, KIND)


def fresh_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0] + "::"


def is_allowed(item: pytest.Item, name: str) -> bool:
    service = name.rpartition(".")[0] or name
    for marker in item.iter_markers("novad_allow_crash"):
        if not marker.args or any(fnmatch.fnmatch(name, p) or fnmatch.fnmatch(service, p) for p in marker.args):
            return True
    return False


def fail(report: pytest.TestReport, text: str) -> None:
    """Turn a report into a failure; of one that has failed by itself the reason stays and this is added."""
    if report.failed:
        report.sections.append(("novad: crash", text))
        return
    report.outcome = "failed"
    report.longrepr = text
    if hasattr(report, "wasxfail"):
        del report.wasxfail
