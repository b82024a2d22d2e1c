"""Choosing port numbers.

A free port is looked for from a number that the project, the process and the port's name decide, so it is the
same one each time. The range lies below those from which Linux (32768) and macOS (49152) take ephemeral ports.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

FIRST, LAST = 20000, 29999


@dataclass(frozen=True, slots=True)
class Wish:
    """A port of a process: `auto`, `8774`, `8774?`, `6080+` or `8774!`, for replica `n`."""

    process: str
    port: str
    text: str
    n: int = 1

    @property
    def key(self) -> str:
        return f"{self.process}.{self.port}"

    @property
    def is_fixed(self) -> bool:
        return self.text != "auto" and not self.text.endswith("?")

    @property
    def number(self) -> int:
        """The number that is asked for; 0 where any will do."""
        if self.text == "auto":
            return 0
        base = int(self.text.rstrip("?+!"))
        return base + self.n - 1 if self.text.endswith("+") else base


@dataclass(frozen=True, slots=True)
class Clash:
    """`wish` cannot be had because `other` has its number; None: because no number is left."""

    wish: Wish
    other: Wish | None


def isolated(text: str) -> str:
    """The wish in a cluster that must not meet another one: any number, unless exactly this one was insisted on."""
    return text if text.endswith("!") else "auto"


def is_free(number: int) -> bool:
    """Whether a server could listen on 127.0.0.1 with this number now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return False
    return True


def choose(
    wishes: list[Wish], taken: Mapping[str, int], seed: str, is_free: Callable[[int], bool] = is_free
) -> tuple[dict[str, int], list[Clash]]:
    """Numbers by `process.port`, never one twice, and the wishes that cannot be met.

    `taken` are the numbers a running daemon gave already; they stay, and are not asked whether they are free.
    """
    numbers: dict[str, int] = {}
    owners: dict[int, Wish] = {}
    clashes = []

    def give(wish: Wish, number: int) -> None:
        numbers[wish.key] = number
        owners[number] = wish

    for wish in wishes:
        if wish.is_fixed and (wish.number in owners or wish.number > 65535):
            clashes.append(Clash(wish, owners.get(wish.number)))
            numbers[wish.key] = wish.number
        elif wish.is_fixed:
            give(wish, wish.number)
    for wish in wishes:
        if not wish.is_fixed and taken.get(wish.key, 0) not in (0, *owners):
            give(wish, taken[wish.key])
    for wish in sorted(wishes, key=lambda wish: wish.text == "auto"):
        if wish.key not in numbers:
            number = next((n for n in _candidates(wish, seed) if n not in owners and is_free(n)), None)
            if number is None:
                clashes.append(Clash(wish, None))
            else:
                give(wish, number)
    return numbers, clashes


def _candidates(wish: Wish, seed: str) -> Iterator[int]:
    if wish.number:
        yield wish.number
    digest = hashlib.sha256(f"{seed}\0{wish.key}".encode("utf-8", "surrogateescape")).digest()
    start = int.from_bytes(digest[:4], "big")
    count = LAST - FIRST + 1
    for step in range(count):
        yield FIRST + (start + step) % count
