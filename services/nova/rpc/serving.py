"""Which call this greenlet serves: what calls made from inside it inherit."""

from __future__ import annotations

import contextvars
from typing import NamedTuple


class Serving(NamedTuple):
    """`deadline` in seconds since the epoch, `depth` 0 for a call that no other call made."""

    unique_id: str
    deadline: float | None
    depth: int


_current: contextvars.ContextVar[Serving | None] = contextvars.ContextVar("nova_rpc_serving", default=None)


def current() -> Serving | None:
    """The call that this greenlet serves, or None outside of one.

    Its `unique_id` is the same each time a call runs again: the key by which an effect can be made once.
    """
    return _current.get()


def begin(serving: Serving) -> None:
    """For the rest of this greenlet."""
    _current.set(serving)
