"""What happened in a run, as plain values: gathered once, told by every report."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from novad.client.journal import Change
from novad.core.secret import shown, shown_words
from novad.core.spec import Cluster

FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
STAMP = re.compile(r"^\S{26}Z [oen] ")


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a source file, the file relative to the project."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Crash:
    """An end that nobody asked for. `lines` are the last ones of that life, `why` the text of `novad why`."""

    name: str
    how: str
    at: float
    lived_s: float
    was_ready: bool
    lines: tuple[str, ...]
    why: str
    place: Place | None

    @property
    def message(self) -> str:
        """The line that names the error, else how it ended."""
        said = [STAMP.sub("", line).strip() for line in self.lines]
        return next((line for line in reversed(said) if line), self.how)


@dataclass(slots=True)
class Story:
    """One run. `code` is what it exits with and `verdict` says why in one sentence; times are unix times."""

    cluster: Cluster
    command: tuple[str, ...]
    began_at: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    crashes: list[Crash] = field(default_factory=list)
    start_crashes: list[Crash] = field(default_factory=list)
    unready: dict[str, str] = field(default_factory=dict)
    survivors: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    # Name -> how much.
    slower: dict[str, str] = field(default_factory=dict)
    are_crashes_forgiven: bool = False
    changes: list[Change] = field(default_factory=list)
    command_at: float | None = None
    command_code: int | None = None
    ended_at: float = 0.0
    code: int = 1
    verdict: str = ""

    @property
    def took_s(self) -> float:
        return max(0.0, self.ended_at - self.began_at)

    def crashed(self) -> list[str]:
        """Names, each once, in the order of the first crash."""
        return list(dict.fromkeys(crash.name for crash in self.crashes))

    def last_crash(self, name: str) -> Crash | None:
        return next((crash for crash in reversed(self.crashes) if crash.name == name), None)


def place_of(lines: list[str], directory: str) -> Place | None:
    """The last frame of the last traceback that lies in the project and in none of its environments."""
    found = None
    for line in lines:
        match = FRAME.search(line)
        if match is None:
            continue
        path = Path(directory, match["file"])
        try:
            relative = path.resolve().relative_to(Path(directory).resolve())
        except (ValueError, OSError):
            continue
        if "site-packages" not in relative.parts and not any(part.startswith(".") for part in relative.parts):
            found = Place(str(relative), int(match["line"]))
    return found


def configuration(cluster: Cluster) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each process with its settings; the environment of the shell is left out and secrets are hidden."""
    found = []
    for spec in cluster.processes:
        rows = [("command", " ".join(shown_words(spec.argv))), ("cwd", spec.cwd)]
        rows += [(f"port {name}", str(port.number)) for name, port in spec.ports.items()]
        rows += (
            [("after", ", ".join(f"{item.name}:{item.condition}" for item in spec.after))] if spec.after else []
        )
        rows += [
            (f"env {key}", shown(key, value or "", cluster.secrets)) for key, value in sorted(spec.env.items())
        ]
        found.append((spec.name, rows))
    return found
