"""Which operations of a load cannot be run, and why: shared by the process that sends them and its judge."""

from __future__ import annotations

# No request at all, wrong arguments; then methods: one that does not exist, one that raises, one that kills.
POISONS = ("bytes", "arguments", "missing", "fail", "die")


def is_poison(n: int, every: int) -> bool:
    """Whether operation `n` is one that cannot be run."""
    return every > 0 and n % every == every - 1
