"""The restart policy: pure arithmetic on failures.

The first restart is immediate, because most crashes are single; then the delay doubles from `min_s` to `max_s`.
What counts is consecutive failures since the process was last settled, not a rate: with a growing delay a rate
limit is never reached (systemd.unit(5), StartLimitBurst, has that trap).
"""

from __future__ import annotations

from novad.core.spec import Backoff

JITTER = 0.1
# How soon a start is tried again for which the machine had no room: as long as that takes, it costs next to nothing.
SHORTAGE_S = 1.0

# A service that says "do not restart me" (daemontools: 100 = you are wrong, 111 = the system failed).
EXIT_PERMANENT = 100


def delay_s(backoff: Backoff, failures: int, jitter: float) -> float:
    """Seconds before the next start after `failures` consecutive failures (1 or more).

    `jitter` in [-1, 1] moves the delay by up to 10 %, so that a cluster does not retry in step.
    """
    if failures <= 1:
        return 0.0
    # The exponent is bounded so that a large count cannot overflow a float.
    grown = backoff.min_s * 2.0 ** min(failures - 2, 64)
    return min(grown, backoff.max_s) * (1.0 + JITTER * jitter)


def shortage_s(jitter: float) -> float:
    """Seconds before a start is tried again for which the machine had no process, memory or descriptor."""
    return SHORTAGE_S * (1.0 + JITTER * jitter)
