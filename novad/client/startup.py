"""How a start goes: which processes are settled, what blocks the others, what took the time. Pure.

Fed with the process values of snapshots and state events; a snapshot that is older than an event already seen
does no harm, because the events that follow it repeat the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Process = dict[str, Any]
SETTLED = ("ready", "done", "failed", "stopped")


@dataclass
class Row:
    """One process: `began_s` when it left waiting, `settled_s` when it became ready, done or failed."""

    name: str
    process: Process
    since_s: float
    began_s: float | None = None
    settled_s: float | None = None
    awaiting: str = ""
    seen: bool = False

    @property
    def state(self) -> str:
        return str(self.process.get("state") or "waiting")

    @property
    def is_timed(self) -> bool:
        """Whether its start and its end were seen."""
        return self.began_s is not None and self.settled_s is not None

    def took_s(self) -> float | None:
        """From its start to readiness, or to its end if it is a one-shot; also of one that we did not see start."""
        if self.settled_s is None:
            return None
        if self.began_s is not None:
            return self.settled_s - self.began_s
        took_s: float | None = self.process.get("uptime_s" if self.state == "done" else "ready_in_s")
        return took_s


@dataclass
class Startup:
    """`after` holds for each process the names (processes or services) it waits for; times are monotonic."""

    names: tuple[str, ...]
    after: Mapping[str, tuple[str, ...]]
    now_s: float
    rows: dict[str, Row] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = {name: Row(name, {"name": name}, self.now_s) for name in self.names}

    def update(self, process: Process, now_s: float) -> bool:
        """Takes in a process value; True when it is one of ours and its state is another one."""
        row = self.rows.get(process["name"])
        if row is None:
            return False
        is_first = not row.seen
        changed = is_first or row.state != process["state"]
        row.seen = True
        row.process = {**row.process, **process}
        if not changed:
            return False
        row.since_s = now_s
        row.awaiting = process.get("awaiting") or row.awaiting
        was_running = is_first and row.state in SETTLED
        if row.state not in ("waiting", "stopped") and row.began_s is None and not was_running:
            row.began_s = now_s
        row.settled_s = now_s if row.state in SETTLED else None
        return True

    def probe(self, name: str, text: str) -> None:
        if name in self.rows:
            self.rows[name].awaiting = text

    def failed(self) -> list[Row]:
        """Failed for good: by its own state, or stopped by somebody before it was ready."""
        return [row for row in self.rows.values() if row.state == "failed"]

    def blocked(self) -> list[Row]:
        """Waiting, directly or not, for something that has failed or was stopped: will not start by itself."""
        dead = {row.name for row in self.rows.values() if row.state in ("failed", "stopped")}
        found: dict[str, Row] = {}
        while True:
            more = [
                row
                for row in self.rows.values()
                if row.state == "waiting" and row.name not in found and self._waits_for(row, dead)
            ]
            if not more:
                return list(found.values())
            found |= {row.name: row for row in more}
            dead |= {row.name for row in more}

    def unsettled(self) -> list[Row]:
        """What may still become ready, in the order of the file."""
        blocked = {row.name for row in self.blocked()}
        return [row for row in self.rows.values() if row.state not in SETTLED and row.name not in blocked]

    @property
    def is_settled(self) -> bool:
        return not self.unsettled()

    @property
    def is_good(self) -> bool:
        return all(row.state in ("ready", "done") for row in self.rows.values())

    def critical_path(self) -> list[tuple[str, float]]:
        """The chain that decided how long it took: name and seconds, first to last."""
        current = max(
            (row for row in self.rows.values() if row.is_timed),
            key=lambda row: row.settled_s or 0.0,
            default=None,
        )
        path: list[tuple[str, float]] = []
        while current is not None and len(path) < len(self.rows):
            path.insert(0, (current.name, current.took_s() or 0.0))
            current = max(
                (row for row in self._named(self.after.get(current.name, ())) if row.is_timed),
                key=lambda row: row.settled_s or 0.0,
                default=None,
            )
        return path

    def _waits_for(self, row: Row, names: set[str]) -> bool:
        waiting_for = [item["name"] if isinstance(item, dict) else item.partition(":")[0]
                       for item in row.process.get("waiting_for") or []]  # fmt: skip
        return any(other.name in names for other in self._named(waiting_for))

    def _named(self, names: Iterable[str]) -> list[Row]:
        """The rows of processes or services called `names`."""
        wanted = set(names)
        return [row for row in self.rows.values() if row.name in wanted or row.process.get("service") in wanted]


def brought_up_to_date(picture: list[dict[str, Any]], events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The processes by name: the picture at the subscription with all that was pushed since.

    A second look would not do: what comes in the same breath as its answer may be older or newer than it.
    """
    now = {item["name"]: item for item in picture}
    for event in events:
        if event.get("type") == "state":
            now[event["name"]] = {**now.get(event["name"], {}), **event}
        elif event.get("type") == "probe" and event["name"] in now:
            now[event["name"]]["awaiting"] = event["text"]
    return now
