"""The two clocks: one for arithmetic, one for people."""

from __future__ import annotations

import time

# Never steps: every deadline and every duration is measured on it.
now_s = time.monotonic

# The second that was stamped last, and its text; one value, because two threads ask.
_last = (-1, "")


def wall() -> float:
    """Seconds since the epoch; only ever printed or stored for a reader."""
    return time.time()


def stamp() -> str:
    """The present as `2026-11-23T17:01:02.123456Z`; the part down to the second is kept between calls."""
    global _last
    second, nanos = divmod(time.time_ns(), 1_000_000_000)
    known, prefix = _last
    if second != known:
        prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _last = (second, prefix)
    return f"{prefix}.{nanos // 1000:06d}Z"
