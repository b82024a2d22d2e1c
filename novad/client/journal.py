"""Reading the daemon's journal for pictures: the state changes since the cluster was last begun.

A line that cannot be read (the daemon may be writing it, a disk may have been full) is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Change:
    """`name` was in `state` from `at` (unix time) on."""

    at: float
    name: str
    state: str


def last_run(path: str, ended: bool = False) -> list[Change]:
    """All state changes since the last end of a daemon; `ended`: all there are, of a journal of one run."""
    changes: list[Change] = []
    for line in lines(Path(path)):
        try:
            event = json.loads(line)
            if event["type"] == "down" and not ended:
                changes = []
            elif event["type"] == "state":
                changes.append(Change(float(event["at"]), str(event["name"]), str(event["state"])))
        except (ValueError, KeyError, TypeError):
            continue
    return changes


def lines(path: Path) -> Iterator[bytes]:
    for each in (path.with_name(f"{path.name}.1"), path):
        try:
            with each.open("rb") as file:
                yield from file
        except FileNotFoundError:
            continue
