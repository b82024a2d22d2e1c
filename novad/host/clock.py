"""The two clocks: one for arithmetic, one for people."""

from __future__ import annotations

import time

# Never steps: every deadline and every duration is measured on it.
now_s = time.monotonic

_second = -1
_prefix = ""


def wall() -> float:
    """Seconds since the epoch; only ever printed or stored for a reader."""
    return time.time()


def stamp() -> str:
    """The present as `2026-11-23T17:01:02.123456Z`; the part down to the second is kept between calls."""
    global _second, _prefix
    second, nanos = divmod(time.time_ns(), 1_000_000_000)
    if second != _second:
        _second = second
        _prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{_prefix}.{nanos // 1000:06d}Z"
