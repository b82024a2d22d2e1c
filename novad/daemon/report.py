"""What an observer sees of a process: the rows of `status` and of `why`, as plain JSON values.

docs/control.md is the contract. Absent values are None; durations are seconds.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Any

from novad.core.order import Graph, Unmet
from novad.core.process import ALIVE, Exit, Process, describe, timer_s
from novad.core.secret import without_userinfo


def process_row(process: Process, graph: Graph, processes: Mapping[str, Process], now_s: float) -> dict[str, Any]:
    """One process of `status`, without its usage and what its probe awaits."""
    spec, ended = process.spec, process.exit
    unmet = graph.unmet(spec.name, processes) if process.state == "waiting" else []
    retry_s = timer_s(process, "retry")
    return {
        "name": spec.name,
        "service": spec.service,
        "replica": spec.replica,
        "state": process.state,
        "want": process.want,
        "pid": process.pid,
        "uptime_s": _uptime_s(process, now_s),
        "restarts": process.restarts,
        "exit_code": ended.code if ended else None,
        "signal": signal_name(ended.signal) if ended and ended.signal is not None else None,
        "cpu_percent": None,
        "rss_bytes": None,
        "ports": {name: port.number for name, port in spec.ports.items()},
        "note": note(process, unmet, now_s),
        "waiting_for": unmet_rows(unmet),
        "awaiting": None,
        "since_s": now_s - process.since_s,
        "ready_in_s": process.ready_in_s,
        "retry_in_s": None if retry_s is None else max(retry_s - now_s, 0.0),
        "status_text": process.status_text or None,
        "url": without_userinfo(spec.url) if spec.url else None,
        "log": spec.log.path,
        "groups": list(spec.groups),
        "description": spec.description or None,
        "attach": spec.log.attach,
    }


def _uptime_s(process: Process, now_s: float) -> float | None:
    if process.state in ALIVE:
        return now_s - process.spawned_s
    if process.state == "done" and process.exit:
        return process.exit.lived_s
    return None


def unmet_rows(unmet: Sequence[Unmet]) -> list[dict[str, Any]]:
    return [{"name": item.name, "condition": item.condition, "state": item.state} for item in unmet]


def note(process: Process, unmet: Sequence[Unmet], now_s: float) -> str | None:
    """One short remark for the last column: why it is not simply ready."""
    whose = ["adopted"] if process.adopted and process.state in ALIVE else []
    if process.seat is not None and process.state in ALIVE:
        whose = [f"fg on {process.seat.terminal}"]
    match process.state:
        case "waiting" if unmet:
            said = "after " + ", ".join(_unmet_text(item) for item in unmet)
        case "backoff":
            retry_s = timer_s(process, "retry") or now_s
            said = f"{process.cause}, retry in {max(retry_s - now_s, 0):.1f}s"
        case "failed":
            said = process.cause
        case "stopping":
            said = process.fault or process.cause
        case "stopped" if process.cause:
            said = f"by {process.cause}"
        case "starting" | "ready":
            said = process.status_text
        case _:
            said = ""
    return ", ".join([*whose, *([said] if said else [])]) or None


def _unmet_text(item: Unmet) -> str:
    if item.state in ("failed", "done", "stopped", "backoff"):
        return f"{item.name} ({item.state})"
    return item.name if item.condition == "ready" else f"{item.name}:{item.condition}"


def signal_name(number: int) -> str:
    """`SIGKILL` for 9, `signal 64` where there is no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_text(ended: Exit) -> str:
    """`exit 1 after 0.31 s`, `killed by SIGKILL after 2.00 s`, or the reason why it did not start."""
    if ended.error:
        return ended.error
    lived = f"after {ended.lived_s:.2f} s"
    if ended.signal is not None:
        return f"killed by {signal_name(ended.signal)} {lived}"
    return f"{describe(ended)} {lived}"


def has_crashed(old: Process, new: Process) -> bool:
    """Whether this change is an end that nobody asked for."""
    ended = new.exit
    if ended is None or ended is old.exit or ended.asked:
        return False
    return ended.stopped_by_fault or not ended.is_clean


def exit_row(ended: Exit, pid: int | None, at: float, lines: Sequence[str]) -> dict[str, Any]:
    """One past child in `why`."""
    return {
        "run": ended.incarnation,
        "pid": pid,
        "at": at,
        "lived_s": ended.lived_s,
        "exit_code": ended.code,
        "signal": signal_name(ended.signal) if ended.signal is not None else None,
        "sent_by_novad": ended.asked or ended.stopped_by_fault,
        "was_ready": ended.was_ready,
        "error": ended.error or None,
        "lines": list(lines),
    }
