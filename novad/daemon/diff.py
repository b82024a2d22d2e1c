"""What differs between two clusters, field by field. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from novad.core.process import Process
from novad.core.spec import Cluster, ProcessSpec, to_json

# What may change without a new child: it is read at the next event, or by people only.
SOFT = {
    "after", "autostart", "backoff", "description", "give_up_after", "groups", "health", "ready",
    "ready_timeout_s", "restart", "restart_with", "start_s", "stop", "url", "watch", "watchdog_s",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One field of one process; `env.NAME` for a variable."""

    key: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """Names by what must happen to them; `changed` holds the fields, `soft` those that need no new child."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: dict[str, tuple[Change, ...]]
    soft: dict[str, tuple[Change, ...]]
    unchanged: tuple[str, ...]

    @property
    def moves(self) -> bool:
        """Whether anything is different at all."""
        return bool(self.added or self.removed or self.changed or self.soft)

    def restarted(self, processes: Mapping[str, Process]) -> list[str]:
        """Who runs by a changed definition; and who has given up tries again by a new one, whatever in it is new."""
        running = [name for name in self.changed if processes[name].want != "down"]
        return [*running, *(name for name in self.soft if processes[name].state == "failed")]

    def to_json(self, processes: Mapping[str, Process]) -> dict[str, Any]:
        """As docs/control.md describes the answer to `reload`."""
        restarted = self.restarted(processes)
        rows = [_row(name, changes, name in restarted) for name, changes in (self.changed | self.soft).items()]
        return {
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": rows,
            "unchanged": list(self.unchanged),
        }


def _row(name: str, changes: tuple[Change, ...], restart: bool) -> dict[str, Any]:
    shown = [{"key": change.key, "old": to_json(change.old), "new": to_json(change.new)} for change in changes]
    return {"name": name, "restart": restart, "fields": shown}


def compare(old: Cluster, new: Cluster) -> Difference:
    """What has to happen to get from `old` to `new`."""
    before = {spec.name: spec for spec in old.processes}
    after = {spec.name: spec for spec in new.processes}
    shell = _env_changes(old.env, new.env)
    changed, soft, unchanged = {}, {}, []
    for name, spec in after.items():
        if name not in before:
            continue
        found = _compare(before[name], spec, shell)
        if not found:
            unchanged.append(name)
        elif all(change.key in SOFT for change in found):
            soft[name] = tuple(found)
        else:
            changed[name] = tuple(found)
    return Difference(
        tuple(name for name in after if name not in before),
        tuple(name for name in before if name not in after),
        changed,
        soft,
        tuple(unchanged),
    )


def _compare(old: ProcessSpec, new: ProcessSpec, shell: list[Change]) -> list[Change]:
    found = []
    for item in fields(ProcessSpec):
        if item.name == "origin":
            # The line of the file where it stands: a remark above it is no change.
            continue
        before, after = getattr(old, item.name), getattr(new, item.name)
        if item.name == "env":
            overlaid = before.keys() | after.keys()
            found += _env_changes(before, after)
            found += [change for change in shell if change.key.removeprefix("env.") not in overlaid]
        elif before != after:
            found.append(Change(item.name, before, after))
    return found


def _env_changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    names = [*old, *(name for name in new if name not in old)]
    return [
        Change(f"env.{name}", old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)
    ]
