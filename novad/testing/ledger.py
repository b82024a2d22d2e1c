"""The start-up ledger: how long each service took to get ready, run by run, with the commit it was.

One JSON line a run in `.novad/ready.jsonl`, so that a CI system can keep the file between its runs.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from novad.client.private import replace_file
from novad.core.errors import UsageError

FILE = "ready.jsonl"
KEPT = 500
COMPARED = 10
# Below this a difference is the machine's mood.
SLACK_S = 0.1
GIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One run: seconds to ready by process."""

    commit: str
    at: float
    profile: str
    ready_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class Regression:
    name: str
    before_s: float
    now_s: float

    def __str__(self) -> str:
        more = (self.now_s / self.before_s - 1) * 100 if self.before_s else float("inf")
        return f"{self.name}: ready after {self.now_s:.2f} s, before {self.before_s:.2f} s ({more:+.0f} %)"


def share(text: str) -> float:
    """`30%` is 0.3. Raises `UsageError`."""
    try:
        found = float(text.removesuffix("%")) / 100
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise UsageError(f"--max-ready-regression {text}: not a percentage", "--max-ready-regression 30%")
    return found


def regressions(past: list[Entry], now: Entry, allowed: float) -> list[Regression]:
    """Who took longer than `allowed` (0.3: 30 %) over the median of the last runs of other commits. Pure.

    Runs of another profile do not count; a service without a past cannot be slower than it.
    """
    others = [entry for entry in past if entry.profile == now.profile and entry.commit != now.commit]
    found = []
    for name, now_s in now.ready_s.items():
        before = [entry.ready_s[name] for entry in others if name in entry.ready_s][-COMPARED:]
        if not before:
            continue
        before_s = statistics.median(before)
        if now_s > before_s * (1 + allowed) and now_s - before_s > SLACK_S:
            found.append(Regression(name, before_s, now_s))
    return found


def read(folder: str) -> list[Entry]:
    """The entries, oldest first; what cannot be read is passed over."""
    try:
        lines = Path(folder, FILE).read_text().splitlines()
    except OSError:
        return []
    return [entry for line in lines if (entry := parsed(line)) is not None]


def parsed(line: str) -> Entry | None:
    try:
        data: dict[str, Any] = json.loads(line)
        ready_s = {str(name): float(value) for name, value in data["ready_s"].items()}
        return Entry(str(data["commit"]), float(data["at"]), str(data["profile"]), ready_s)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def add(folder: str, past: list[Entry], entry: Entry) -> None:
    """Write `entry` after `past`, of which the oldest are dropped. Raises `OSError`."""
    kept = [*past, entry][-KEPT:]
    lines = [
        json.dumps({"commit": item.commit, "at": item.at, "profile": item.profile, "ready_s": item.ready_s})
        for item in kept
    ]
    replace_file(Path(folder, FILE), "".join(f"{line}\n" for line in lines))


def commit_of(directory: str) -> str:
    """The commit that is checked out, with a `+` where files differ from it; empty without git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"], cwd=directory,
            capture_output=True, text=True, timeout=GIT_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
