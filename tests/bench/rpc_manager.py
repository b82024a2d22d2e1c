"""The manager that `rpc.py` measures."""

from __future__ import annotations

from typing import Any

from nova.manager import Manager


class Bench(Manager):
    def __init__(self, host: str | None = None) -> None:
        super().__init__(host)
        self.noticed = 0

    def echo(self, context: Any, text: str) -> str:
        return text

    def notice(self, context: Any, text: str) -> None:
        self.noticed += 1

    def count(self, context: Any) -> int:
        return self.noticed
