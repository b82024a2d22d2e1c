"""Going on where an earlier daemon stopped: what still runs is adopted, what nobody wants is ended.

Three signs say that an instance is alive: its record, the mark in its environment, the lock that it inherited.
The record tells most; the mark finds a child that was started and not recorded any more; the lock keeps a
second copy from starting where both failed.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from novad.core.errors import WireError
from novad.core.process import Process
from novad.core.record import Found, Identity, Record, restore
from novad.core.spec import Cluster, ProcessSpec, cluster_from_json
from novad.daemon.supervisor import Supervisor
from novad.daemon.upgrade import Handover
from novad.host import clock, proc
from novad.host.child import MARK
from novad.host.record import Records, identify, is_same


@dataclass(frozen=True, slots=True)
class Marked:
    """A living process with the mark of this cluster."""

    pid: int
    name: str
    incarnation: int


def resume(supervisor: Supervisor, records: Records, handover: Handover) -> None:
    """Load the cluster that was running here in this boot, if one was, and take over what is left of it."""
    cluster = _cluster(records)
    if cluster is None:
        records.clear_old()
        return
    written = {item.name: item for item in records.read()}
    marked = _marked(supervisor)
    supervisor.load(cluster)
    supervisor.history.read_back()
    for spec in cluster.processes:
        mine = [item for item in marked if item.name == spec.name]
        _resume_process(supervisor, spec, written.get(spec.name), mine, handover)
    names = {spec.name for spec in cluster.processes}
    _kill([item.pid for item in marked if item.name not in names])
    supervisor.effects.children.reap_orphans()
    supervisor.settle()


def _cluster(records: Records) -> Cluster | None:
    data = records.read_cluster()
    if not isinstance(data, dict) or data.get("boot_id") != proc.boot_id():
        return None
    try:
        return cluster_from_json(data.get("cluster"))
    except WireError:
        return None


def _marked(supervisor: Supervisor) -> list[Marked]:
    prefix = supervisor.effects.wiring.mark_prefix
    found = []
    for pid in proc.all_pids():
        mark = proc.mark(pid, MARK)
        name, _, incarnation = mark.removeprefix(prefix).rpartition("/")
        if mark.startswith(prefix) and incarnation.isdigit() and proc.is_alive(pid):
            found.append(Marked(pid, name, int(incarnation)))
    return found


def _resume_process(
    supervisor: Supervisor,
    spec: ProcessSpec,
    item: Record | None,
    marked: list[Marked],
    handover: Handover,
) -> None:
    effects = supervisor.effects
    newest = max((other.incarnation for other in marked), default=0)
    if item is None or newest > item.incarnation:
        item = _unrecorded(spec, item, newest, marked)
    strays = [other.pid for other in marked if other.incarnation != item.incarnation]
    _kill(strays)
    mark = effects.wiring.mark(spec.name, item.incarnation)
    identity = item.identity
    child = None
    if identity is not None and is_same(identity, mark, MARK):
        try:
            child = effects.adopt(spec.name, item.incarnation, identity, handover)
        except ProcessLookupError:
            pass
    leader = child.pid if child else None
    rest = [other.pid for other in marked if other.incarnation == item.incarnation]
    leftovers = leader is None and bool(rest) and effects.adopt_leftovers(spec.name, item.incarnation, rest)
    supervisor.become(
        spec.name,
        restore(spec, item, Found(leader, leftovers, child is not None and not child.is_adopted), clock.now_s()),
    )


def _unrecorded(spec: ProcessSpec, item: Record | None, newest: int, marked: list[Marked]) -> Record:
    """A child that was started and not written down: novad died in between."""
    blank = Process(spec)
    incarnation = max(newest, item.incarnation if item else 0)
    leader = _leader([other.pid for other in marked if other.incarnation == incarnation])
    want = item.want if item else ("up" if leader else blank.want)
    return Record(
        spec.name, want, "starting" if leader else "stopped", incarnation, item.failures if item else 0,
        item.restarts if item else 0, "", None, clock.now_s(), leader,
    )  # fmt: skip


def _leader(pids: list[int]) -> Identity | None:
    """The oldest session leader among `pids`: every child of ours is born as one."""
    stats = [found for pid in pids if (found := proc.stat(pid)) is not None and found.session == pid]
    for found in sorted(stats, key=lambda item: (item.started, item.pid)):
        try:
            pidfd = os.pidfd_open(found.pid)
        except ProcessLookupError:
            continue
        try:
            return identify(found.pid, pidfd, _pipes(found.pid))
        finally:
            os.close(pidfd)
    return None


def _pipes(pid: int) -> tuple[int, ...]:
    found = []
    for number in (1, 2):
        try:
            found.append(os.stat(f"/proc/{pid}/fd/{number}").st_ino)
        except OSError:
            continue
    return tuple(found)


def _kill(pids: list[int]) -> None:
    """What no definition wants any more; its mark says that it is ours."""
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)
