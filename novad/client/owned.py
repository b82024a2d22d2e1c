"""A cluster that lives as long as its owner: of `novad run`, and of a test run.

It has a namespace of its own, and with it a run directory, logs, a journal and free ports; two never meet. The
owner holds a lease at the daemon and a guardian beside it: whichever of owner and daemon dies, and if both do,
everything is gone within two seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from novad.client import sweep
from novad.client.deadline import Deadline
from novad.client.guardian import Guardian
from novad.client.launch import connect_or_launch, prepare
from novad.client.link import Link, Unanswered, connect, unanswered
from novad.core.errors import NotRunning, NovadError
from novad.core.place import Place, place
from novad.core.spec import Cluster, cluster_from_json, to_json

# Services of an owner that was killed get this long; the guardian waits a little longer, and all within 2 s.
GRACE_S = 0.8
UP_ANSWER_S = 60.0
# A daemon that has not gone down within this time is asked whether it lives.
ALIVE_S = 10.0
KEPT_RUNS = 5
PREFIX = "run-"
# One after another: the ports that one has chosen must be held before the next one looks for free ones.
LOCK = "choosing-ports"

Compile = Callable[[Place], Cluster]


def fresh_namespace(kind: str = PREFIX) -> str:
    return f"{kind}{uuid.uuid4().hex[:8]}"


def isolated_place(project: Place, namespace: str) -> Place:
    """The place of another cluster of the same nova.toml. All that it writes is in one directory."""
    found = place(project.config, namespace, None, "", os.getuid())
    run_dir = f"{os.path.dirname(project.run_dir)}/{os.path.basename(found.run_dir)}"
    return replace(found, run_dir=run_dir, socket=f"{run_dir}/control", state_dir=found.log_dir)


@dataclass
class Owned:
    """A running cluster and the two lines that tie it to this process. `cluster` is what its daemon has loaded.

    Without a guardian it is somebody else's, and only the connection is ours.
    """

    place: Place
    cluster: Cluster
    link: Link
    guardian: Guardian | None
    is_closed: bool = False
    # Why it did not go down in good order, where it did not.
    complaint: str = ""
    excused: set[tuple[str, int]] = field(default_factory=set)

    def environment(self) -> dict[str, str]:
        """What a program needs to find the services; docs/ci.md explains each name."""
        return {
            "NOVAD_FILE": self.place.config,
            "NOVAD_NAMESPACE": self.place.namespace,
            "NOVAD_SOCKET": self.place.socket,
            **addresses(self.cluster),
        }

    def ask(self, verb: str, timeout_s: float | None = 10.0, /, **args: Any) -> dict[str, Any]:
        return self.link.request(verb, timeout_s, **args)

    def processes(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.ask("status", names=[], usage=False)["processes"]
        return rows

    def crashes(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """(entry of `why`, exit) of each end that nobody asked for and nobody has excused, oldest first."""
        names = [spec.name for spec in self.cluster.processes]
        found = []
        for entry in self.ask("why", names=names)["processes"] if names else ():
            for item in entry["exits"]:
                if is_unasked(item) and (entry["name"], item["run"]) not in self.excused:
                    found.append((entry, item))
        return sorted(found, key=lambda pair: float(pair[1]["at"] or 0.0))

    def release(self) -> None:
        """The cluster lives on without an owner."""
        self.is_closed = True
        if self.guardian is not None:
            self.ask("lease", release=True)
            self.guardian.dismiss()
        self.link.close()

    def leave(self) -> bool:
        """Give the lease back where others hold one, else take the cluster down; whether it is down.

        To be called in `alone`, or another owner may join what is just ending.
        """
        if self.guardian is not None:
            if self._is_last():
                self.stop()
                return True
            self.guardian.leave()
        self.is_closed = True
        self.link.close()
        return False

    def _is_last(self) -> bool:
        try:
            return bool(self.ask("lease", release=True)["holders"] == 0)
        except NovadError:
            return True

    def stop(self, timeout_s: float | None = None, kill: bool = False) -> list[str]:
        """Take the cluster down; what did not die, as text.

        A daemon that is gone has its rest swept up; so has one that stands still, and `complaint` says so.
        """
        if self.is_closed or self.guardian is None:
            return []
        self.is_closed = True
        survivors: list[str] = []
        try:
            reply = self._down(timeout_s, kill)
            survivors = [f"{item['name']}: pid {item['pid']} {item['command']}" for item in reply["survivors"]]
            self._await_the_end()
        except Unanswered as silence:
            self.complaint = f"{silence}; it was killed, and its services with it"
        except NovadError:
            pass
        self.link.close()
        if not self.guardian.sweep():
            survivors.append("processes that fork faster than they can be killed")
        self.guardian.dismiss()
        shutil.rmtree(self.place.run_dir, ignore_errors=True)
        return survivors

    def _down(self, timeout_s: float | None, kill: bool) -> dict[str, Any]:
        """The answer to `down`, which takes as long as the services take. Raises `Unanswered` where nobody is awake."""
        self.link.request("ping", ALIVE_S)
        asked = self.link.send("down", timeout_s=timeout_s, kill=kill)
        while True:
            with contextlib.suppress(Unanswered):
                return self.link.result(asked, ALIVE_S)
            # It may have closed the connection after its answer to the other request.
            with contextlib.suppress(NotRunning):
                self.link.request("ping", ALIVE_S)

    def _await_the_end(self) -> None:
        """The daemon has closed its side: it is past its last write. Raises `Unanswered` where it does not."""
        deadline = Deadline(ALIVE_S)
        with contextlib.suppress(NotRunning):
            while not deadline.is_over:
                self.link.next_event(deadline.left_s())
            raise unanswered(ALIVE_S)

    def abandon(self) -> None:
        """In a child made by fork: the parent is the owner."""
        if self.is_closed:
            return
        self.is_closed = True
        self.link.close()
        if self.guardian is not None:
            self.guardian.abandon()


def is_unasked(item: Mapping[str, Any]) -> bool:
    """Whether an exit of `why` is a crash: nobody stopped it, nobody sent it the signal it died of."""
    if item.get("sent_by_novad") or item.get("signalled"):
        return False
    return bool(item.get("error")) or item.get("signal") is not None or item.get("exit_code") not in (0, None)


def addresses(cluster: Cluster) -> dict[str, str]:
    """The variables that all processes share, and NAME_URL and NAME_PORT_PORT of each."""
    found: dict[str, str] = {}
    envs = [process.env for process in cluster.processes]
    for name, value in (envs[0] if envs else {}).items():
        if value is not None and all(env.get(name) == value for env in envs):
            found[name] = value
    for process in cluster.processes:
        key = "".join(letter if letter.isalnum() else "_" for letter in process.name.upper())
        if process.url:
            found[f"{key}_URL"] = process.url
        for name, port in process.ports.items():
            suffix = "" if name == "port" else "_" + "".join(x if x.isalnum() else "_" for x in name.upper())
            found[f"{key}_PORT{suffix}"] = str(port.number)
    return found


def start(
    project: Place, namespace: str, compile: Compile, command_tokens: tuple[str, ...] = (),
    owner_pid: int | None = None,
) -> Owned:  # fmt: skip
    """Load the cluster into a daemon of its own, or join the one that another owner has; starts no service yet.

    Raises `ConfigError` before anything runs, `NovadError` where the daemon does not come up.
    """
    where = isolated_place(project, namespace)
    with alone(where), one_at_a_time(where):
        cluster = compile(where)
        prepare(replace(where, state_dir=f"{where.dir}/.novad"))
        prepare(where)
        guardian = Guardian(where, *command_tokens)
        try:
            link = joined(where, owner_pid)
            link.request("up", UP_ANSWER_S, cluster=to_json(cluster), names=[], start=False)
            loaded = cluster_from_json(link.request("spec")["cluster"])
        except BaseException:
            guardian.give_up()
            raise
    made = Owned(where, loaded, link, guardian)
    os.register_at_fork(after_in_child=made.abandon)
    return made


def joined(where: Place, owner_pid: int | None) -> Link:
    """A link that holds a lease. A daemon that is just going down is waited for. Raises `NovadError`."""
    deadline = Deadline(UP_ANSWER_S)
    while True:
        link, _ = connect_or_launch(where)
        try:
            link.request("lease", grace_s=GRACE_S, **({} if owner_pid is None else {"owner_pid": owner_pid}))
            return link
        except NotRunning:
            if deadline.is_over:
                raise
            with contextlib.suppress(NotRunning):
                while True:
                    link.next_event(deadline.left_s())
            link.close()


@contextlib.contextmanager
def one_at_a_time(where: Place) -> Iterator[None]:
    """Holds a lock that all owned clusters of this user share."""
    fd = locked(str(Path(where.run_dir).parent / LOCK))
    try:
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def alone(where: Place) -> Iterator[None]:
    """Holds a lock that the owners of one cluster share: it begins and ends, files included, without the others."""
    path = f"{where.run_dir}.owners"
    fd = locked(path)
    try:
        yield
    finally:
        # Removed while it is held; whoever waits for it sees that and takes a new one.
        os.unlink(path)
        os.close(fd)


def locked(path: str) -> int:
    """A descriptor that holds the lock of the file at `path`, which is made if need be."""
    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(fd).st_ino:
                return fd
        os.close(fd)


def attach(project: Place, socket: str | None) -> Owned:
    """The cluster that listens on `socket`, or else on the project's own. Raises `NotRunning`."""
    where = replace(project, socket=socket, run_dir=os.path.dirname(socket)) if socket else project
    link = connect(where)
    data = link.request("spec")["cluster"]
    if data is None:
        link.close()
        raise NotRunning("the cluster to attach to has nothing loaded", "novad up")
    made = Owned(where, cluster_from_json(data), link, None)
    made.excused = {(entry["name"], item["run"]) for entry, item in made.crashes()}
    return made


def remove_files(where: Place) -> None:
    """All that the cluster wrote into `.novad`: logs, journal, and the state that is named by its namespace."""
    for path in Path(where.dir, ".novad").glob(f"*-{where.namespace}"):
        shutil.rmtree(path, ignore_errors=True)


def remove_old(where: Place, kind: str = PREFIX) -> None:
    """Of the runs that failed, the last ones are kept to be looked at."""
    logs = sorted(
        Path(where.dir, ".novad").glob(f"logs-{kind}*"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for path in logs[KEPT_RUNS:]:
        namespace = path.name.removeprefix("logs-")
        remove_files(replace(where, namespace=namespace))


def end_marked(token: str) -> bool:
    """Kill every process whose environment holds `token`, and what descends from it; whether none is left."""
    return sweep.sweep([token])
