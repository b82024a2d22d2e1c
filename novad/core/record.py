"""What is written down of a process, so that another daemon can go on with it. Pure.

A record holds facts that can be checked against the kernel (pid, start time, boot, inode of the pidfd) and what
only people and time can tell (want, state, counts). It is written after every change that matters; a change
that was not written any more is found again by the mark in the environment of the child.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_args

from novad.core.machine import SWEEP_S
from novad.core.messages import CheckHealth, Terminate, Watch
from novad.core.process import ALIVE, Foreground, Process, State, Want, arm, enter
from novad.core.spec import ProcessSpec
from novad.core.stopping import Step


@dataclass(frozen=True, slots=True)
class Identity:
    """Which process a pid meant: `started` in ticks since boot, `inode` of its pidfd, `pipes` of its output."""

    pid: int
    started: int
    inode: int
    boot_id: str
    pipes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One process as written down. `spawned_s` is on the steady clock, which one boot's daemons share, and which nobody
    sets; `identity` is None without a child, `seat` where that is not on a terminal."""

    name: str
    want: Want
    state: State
    incarnation: int
    failures: int
    restarts: int
    cause: str
    ready_in_s: float | None
    spawned_s: float
    identity: Identity | None
    seat: Foreground | None = None


def record(process: Process, identity: Identity | None) -> Record:
    """What there is to write of `process`."""
    is_alive = process.state in ALIVE
    return Record(
        process.spec.name, process.want, process.state, process.incarnation, process.failures, process.restarts,
        process.cause, process.ready_in_s, process.spawned_s, identity if is_alive else None,
        process.seat if is_alive else None,
    )  # fmt: skip


def to_json(item: Record) -> dict[str, Any]:
    return asdict(item)


def from_json(data: Any) -> Record | None:
    """The record, or None where the data is not one: a torn or foreign file is as good as none."""
    if not isinstance(data, dict) or set(data) != {field.name for field in fields(Record)}:
        return None
    identity, seat = data["identity"], data["seat"]
    if data["state"] not in get_args(State) or data["want"] not in get_args(Want):
        return None
    try:
        known = None if identity is None else Identity(**{**identity, "pipes": tuple(identity["pipes"])})
        return Record(**{**data, "identity": known, "seat": None if seat is None else Foreground(**seat)})
    except (TypeError, KeyError):
        return None


@dataclass(frozen=True, slots=True)
class Found:
    """What the kernel says of a recorded child now: its pid if its leader lives, and whether others of it do.

    `is_ours`: it is a child of this very process, which then has only changed its code.
    """

    pid: int | None
    leftovers: bool
    is_ours: bool = False


def restore(spec: ProcessSpec, item: Record, found: Found, now_s: float) -> Step:
    """The process as a new daemon takes it over, and what must be done at once.

    A child that runs is adopted as it is, wanted or not; what a dead leader left behind is ended; a resting process
    rests on.
    """
    process = Process(
        spec, want=item.want, incarnation=item.incarnation, failures=item.failures, restarts=item.restarts,
        since_s=now_s, spawned_s=min(item.spawned_s, now_s), ready_in_s=item.ready_in_s,
    )  # fmt: skip
    if found.pid is not None:
        process = replace(process, pid=found.pid, adopted=not found.is_ours, seat=item.seat)
        return _adopt(process, item, now_s)
    if item.seat is not None:
        # The child on the terminal is gone, and what it was there for with it.
        item = replace(item, want=item.seat.want_after)
        process = replace(process, want=item.want)
    if found.leftovers:
        process = replace(enter(process, "stopping", now_s, "its leader died"), purpose="sweep")
        return arm(process, kill=now_s + SWEEP_S), (Terminate(item.incarnation, spec.stop.signal),)
    if item.state in ("stopped", "failed", "done"):
        return enter(process, item.state, now_s, item.cause), ()
    if item.want == "down":
        return enter(process, "stopped", now_s, item.cause), ()
    # It died unseen, or was about to be started.
    return enter(process, "waiting", now_s, "died while novad was away"), ()


def _adopt(process: Process, item: Record, now_s: float) -> Step:
    spec, incarnation = process.spec, process.incarnation
    if item.want == "down" or item.state == "stopping":
        process = replace(enter(process, "stopping", now_s, item.cause), purpose="command")
        if item.want != "down":
            process = replace(process, purpose="restart")
        return arm(process, kill=now_s + spec.stop.timeout_s), (Terminate(incarnation, spec.stop.signal),)
    if item.state == "ready":
        process = enter(process, "ready", now_s, item.cause)
        reset_s = spec.backoff.reset_after_s
        process = arm(process, settled=now_s + reset_s if process.failures else None)
        return process, (CheckHealth(incarnation),) if spec.health and process.seat is None else ()
    process = enter(process, "starting", now_s, item.cause)
    if spec.ready is None or only_said(spec):
        # Nobody heard it say that it was ready; that it lives is all that can be known.
        return arm(process, alive=None if spec.oneshot else now_s + spec.start_s), ()
    # Of several kinds, those that are announced may have been; those that are asked for are asked again.
    asked = replace(spec.ready, notify=False, notify_fd=None, log=None)
    process = arm(process, unready=None if process.seat else now_s + spec.ready_timeout_s)
    return process, (Watch(incarnation, asked),)


def only_said(spec: ProcessSpec) -> bool:
    """Whether readiness is only ever announced by the service itself, and never asked for."""
    probe = spec.ready
    return probe is not None and not (probe.http or probe.tcp or probe.exec)
