"""What to do with a message that comes again: it may have killed the process that had it.

Pure. A broker says that a message was delivered before, not how often, so the count travels in the message: a
redelivered one is published again with `_attempt` one higher, and the old copy is acknowledged once the broker
has the new one. Twice the message runs beside all others. The third time it goes to the suspects' queue, whose
consumer takes one at a time: what dies there is alone and therefore guilty, and is buried. So a message is
begun at most three times, and one that only stood beside a deadly one is never buried for it.
"""

from __future__ import annotations

import enum

MAX_TRIES = 3


class Verdict(enum.Enum):
    RUN = "run"
    AGAIN = "publish again where it came from, counted"
    ALONE = "publish again to the suspects"
    BURY = "dead-letter"


def judge(redelivered: bool, attempt: int, is_suspect: bool) -> Verdict:
    """`attempt` is how often it may have begun before this delivery; `is_suspect`: it comes from the suspects'
    queue.
    """
    if not redelivered:
        return Verdict.RUN
    if is_suspect:
        return Verdict.BURY
    return Verdict.AGAIN if attempt + 2 < MAX_TRIES else Verdict.ALONE
