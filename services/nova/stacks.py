"""What every greenlet and thread of this process is doing, as text. Any thread may ask.

The main thread, in which the hub runs, comes first. Whoever waits at the same place is told once: a service has
twenty threads for files, and may have a thousand greenlets for calls.
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Iterable
from typing import Any

from nova import green


def text(title: str, lines: Iterable[str] = ()) -> str:
    """`title`, then `lines` (calls in flight, for one), then the stacks."""
    return "\n".join([f"==== {title}", *lines, *_threads(), *_greenlets(), "==== end"]) + "\n"


def _threads() -> list[str]:
    threading = green.original("threading")
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    frames = sorted(sys._current_frames().items(), key=lambda item: item[0] != main)
    return _told_once("thread", [(names.get(ident, str(ident)), frame) for ident, frame in frames])


def _greenlets() -> list[str]:
    """Those that wait; the one that runs is its thread's stack."""
    waiting = [item for item in gc.get_objects() if isinstance(item, green.greenlet)]
    pairs = [(type(item).__name__, item.gr_frame) for item in waiting]
    return _told_once("greenlet", [(name, frame) for name, frame in pairs if frame is not None])


def _told_once(kind: str, found: Iterable[tuple[str, Any]]) -> list[str]:
    """The stacks of (name, frame), each with the names of all that have it."""
    names_of: dict[tuple[str, ...], list[str]] = {}
    for name, frame in found:
        stack = tuple(line.rstrip("\n") for line in traceback.format_stack(frame))
        names_of.setdefault(stack, []).append(name)
    told = []
    for stack, names in names_of.items():
        what = kind if len(names) == 1 else f"{len(names)} {kind}s"
        told += [f"-- {what} {', '.join(sorted(set(names)))}", *stack]
    return told
