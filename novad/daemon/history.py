"""Past exits: remembered for `why`, written to the journal, and read back from it by a daemon that took over."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import Any

from novad.core.process import Exit, describe
from novad.daemon import log_tail
from novad.host.journal import Journal

KEPT = 10
# So many equal deaths in a row are one repeating crash.
ALIKE = 3
NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class PastExit:
    """An exit with what a reader needs: when, which pid, and, after a `settle`, where its lines end in the log."""

    ended: Exit
    pid: int | None
    at: float
    log_position: list[int]

    def last_lines(self, path: str, count: int) -> list[str]:
        """What it wrote last into its log; who did not start wrote nothing, and what stands there is another's."""
        return [] if self.ended.error else log_tail.last_lines(path, self.log_position, count)

    @property
    def is_crash(self) -> bool:
        """Whether it ended by itself: whom novad stops, for a probe or a ping, dies of novad's own signal."""
        return not (self.ended.asked or self.ended.is_clean or self.ended.stopped_by_fault)

    @property
    def kind(self) -> tuple[int | None, int | None, str]:
        """What is equal in equal ends. A number in an error is a pid or an age."""
        return self.ended.code, self.ended.signal, NUMBER.sub("", self.ended.error)


class History:
    """The last exits of each process, newest first."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._exits: dict[str, deque[PastExit]] = {}

    def of(self, name: str) -> list[PastExit]:
        return list(self._exits.get(name, ()))

    def add(self, name: str, past: PastExit) -> None:
        """Remember an exit, here and on disk."""
        self._keep(name, past)
        ended = past.ended
        self._journal.write(
            "exit", name=name, run=ended.incarnation, pid=past.pid, code=ended.code, signal=ended.signal,
            error=ended.error, lived_s=round(ended.lived_s, 6), asked=ended.asked, was_ready=ended.was_ready,
            stopped_by_fault=ended.stopped_by_fault, log=past.log_position,
        )  # fmt: skip

    def _keep(self, name: str, past: PastExit) -> None:
        self._exits.setdefault(name, deque(maxlen=KEPT)).appendleft(past)

    def repeating(self, name: str, path: str) -> str | None:
        """`exit 1: KeyError: 'vcpus'` when the last three children ended alike, unasked, with the same last error line.

        `path` is the log of `name`.
        """
        last = self.of(name)[:ALIKE]
        ends = {past.kind for past in last}
        if len(last) < ALIKE or len(ends) > 1 or not all(past.is_crash for past in last):
            return None
        self._journal.settle()
        lines = {tuple(past.last_lines(path, 1)) for past in last}
        if len(lines) > 1:
            return None
        line = next(iter(lines))
        return ": ".join([describe(last[0].ended), *line])

    def forget(self, name: str) -> None:
        self._exits.pop(name, None)

    def last_crashed(self) -> str | None:
        """The process whose last unasked end is the latest."""
        crashed = [
            (past.at, name)
            for name, exits in self._exits.items()
            for past in exits
            if not past.ended.asked and not past.ended.is_clean
        ]
        return max(crashed)[1] if crashed else None

    def read_back(self) -> None:
        """What the daemon before us knew since its `up`."""
        for item in self._journal.tail():
            if item.get("type") == "exit":
                past = _from_json(item)
                if past is not None:
                    self._keep(str(item["name"]), past)
            elif item.get("type") == "up":
                self._exits.clear()


def _from_json(item: dict[str, Any]) -> PastExit | None:
    """The exit of a journal line, or None where the line is not ours to understand."""
    try:
        ended = Exit(
            item["run"], item["code"], item["signal"], item["error"], item["was_ready"], item["asked"],
            item["stopped_by_fault"], item["lived_s"],
        )  # fmt: skip
        inode, size = item["log"]
        return PastExit(ended, item["pid"], item["at"], [inode, size])
    except (KeyError, TypeError, ValueError):
        return None
